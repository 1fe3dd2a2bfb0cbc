"""The admin API over HTTP, with the command line's errors."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from runtime.api.answers import (
    AuditList,
    BudgetList,
    BudgetRemoved,
    BudgetSet,
    ErrorAnswer,
    ForecastList,
    HealthReport,
    KeyList,
    MadeKey,
    ShownKey,
    UsageList,
)
from runtime.core.requests.loopback import names_loopback
from runtime.core.views.changes import Change, EngineChange, ReleaseChange
from runtime.core.views.forms import Plan, ReleaseList, Status
from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

_Form = TypeVar("_Form", bound=BaseModel)

_TIMEOUT_S = 10.0
_SHOWN = 80
_MOST_PORTS = 2**16 - 1
_SILENT_S = 40.0
"""A stream without an event or a comment for so long is dead."""
_AGAIN_S = 1.0
"""Pause before connecting again to a stream of events that has ended."""
_change: TypeAdapter[ReleaseChange | EngineChange] = TypeAdapter(Change)
_PLAN_TIMEOUT_S = 120.0
"""A plan may have to hash weights that were never seen before."""


class AdminClient:
    """Asks one gateway, which asks the manager.

    Every call raises ``Unavailable`` if nobody answers there, or not yet, and ``CommandError`` if
    somebody answers and refuses.
    """

    def __init__(
        self, settings: Settings, address: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._address = address or settings.address
        headers = {"x-interlock-actor": _user()}
        if settings.admin_key:
            headers["authorization"] = f"Bearer {settings.admin_key.get_secret_value()}"
        self._http = _client(self._address, headers, transport)

    def status(self) -> Status:
        """Return the control state."""
        return self._read("GET", "status", Status)

    def ready(self) -> bool:
        """Say whether the gateway that answers takes requests."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.RequestError:
            return False

    def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        return self._request("GET", "health", HealthReport)

    def releases(self) -> tuple[ReleaseList, str]:
        """Return the releases and their etag."""
        releases = self._read("GET", "releases", ReleaseList)
        return releases, f'"{releases.edition}"'

    def command(self, path: str, etag: str, body: Mapping[str, Any] | None = None) -> ReleaseList:
        """Carry ``path`` (such as ``releases/3/promote``) out, as decided by ``etag``."""
        return self._read("POST", path, ReleaseList, body, {"if-match": etag})

    def plan(self, model_set: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to ``model_set`` would do."""
        return self._request("POST", "plans", Plan, {"model_set": model_set}, timeout=_PLAN_TIMEOUT_S)

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        entries: list[dict[str, Any]] = self._request("GET", f"audit?limit={limit}", AuditList)["entries"]
        return entries

    def changes(self, warn: Callable[[str], None]) -> Iterator[ReleaseChange | EngineChange]:
        """Yield what happens to releases and engines from now on, without end.

        A gateway that does not answer at first is an error. Later the stream is connected again; ``warn`` is
        called with why events are missing meanwhile, or may be.
        """
        last_id, connected = "", False
        while True:
            try:
                for event in self._events(last_id):
                    connected = True
                    _check_event(event)
                    last_id = event.get("id", last_id)
                    if event.get("event") == "missed":
                        warn(f"events are missing: {json.loads(event['data'])['message']}")
                    elif "data" in event:
                        yield _change.validate_json(event["data"])
            except Unavailable as error:
                if not connected:
                    raise
                warn(f"events may be missing: {error}")
            except (ValueError, KeyError, TypeError) as error:
                message = f"what {self._address} sends as events is of another version of Interlock: "
                raise CommandError(message + type(error).__name__) from error
            time.sleep(_AGAIN_S)

    def _events(self, last_id: str) -> Iterator[dict[str, str]]:
        """Yield the fields of each event of one stream, which ends after a while."""
        headers = {"last-event-id": last_id} if last_id else {}
        limits = httpx.Timeout(_TIMEOUT_S, read=_SILENT_S)
        try:
            with self._http.stream("GET", "/admin/v1/events", headers=headers, timeout=limits) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error_of(answer, self._address)
                if not _media(answer).startswith("text/event-stream"):
                    answer.read()
                    raise CommandError(_not_interlock(answer, self._address))
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if line and name:
                        fields[name] = value
                    elif fields:
                        yield fields
                        fields = {}
        except httpx.RequestError as error:
            message = f"no gateway answers at {self._address} ({error}); is the application deployed?"
            raise Unavailable(message) from error

    def create_key(self, tenant: str, name: str, budgets: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Make an API key with budgets of its own; its secret is in the answer, under ``key``."""
        return self._request(
            "POST", "keys", MadeKey, {"tenant": tenant, "name": name, "budgets": list(budgets)}
        )

    def keys(self) -> list[dict[str, Any]]:
        """Return every API key that ever was, without its secret."""
        keys: list[dict[str, Any]] = self._request("GET", "keys", KeyList)["keys"]
        return keys

    def budgets(self) -> list[dict[str, Any]]:
        """Return every budget and limit, and how it stands."""
        budgets: list[dict[str, Any]] = self._request("GET", "budgets", BudgetList)["budgets"]
        return budgets

    def set_budget(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        """Set a budget or a limit; return all ``budgets`` with it, and ``warnings`` about it."""
        return self._request("PUT", "budgets", BudgetSet, budget)

    def remove_budget(self, budget: int) -> None:
        """Remove a budget or a limit."""
        self._request("DELETE", f"budgets/{budget}", BudgetRemoved)

    def usage(self, by: str, since: float) -> list[dict[str, Any]]:
        """Return requests, hops and tokens since then (seconds since the Unix epoch), by group."""
        usage: list[dict[str, Any]] = self._request("GET", f"usage?by={by}&since={since}", UsageList)["usage"]
        return usage

    def forecast(self) -> list[dict[str, Any]]:
        """Return for every budget and limit when it runs out at the present rate."""
        forecast: list[dict[str, Any]] = self._request("GET", "usage/forecast", ForecastList)["forecast"]
        return forecast

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """End an API key and return it."""
        return self._request("DELETE", f"keys/{quote(key_id, safe='')}", ShownKey)

    def _request(
        self,
        method: str,
        path: str,
        form: type[BaseModel],
        body: Mapping[str, Any] | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        """Return an answer as JSON, checked against its form; a later version may have more members."""
        answer: dict[str, Any]
        answer, _ = _read(self._send(method, path, body, timeout=timeout), form, self._address)
        return answer

    def _read(
        self,
        method: str,
        path: str,
        form: type[_Form],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Form:
        """Return an answer in its form."""
        return _read(self._send(method, path, body, headers), form, self._address)[1]

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> httpx.Response:
        try:
            answer = self._http.request(
                method, f"/admin/v1/{path}", json=body, headers=headers, timeout=timeout
            )
        except httpx.RequestError as error:
            message = f"no gateway answers at {self._address} ({error}); is the application deployed?"
            raise Unavailable(message) from error
        if answer.is_success:
            return answer
        raise _error_of(answer, self._address)


def _client(address: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None) -> httpx.Client:
    """Return a client of ``address``, by the environment's proxies and certificates. Raises CommandError.

    A gateway on this host is called without a proxy, whatever the environment says: the proxy would get the
    admin key, and would look for the gateway on its own host.
    """
    wrong = f"the address of a gateway is like http://127.0.0.1:8000, not {address[:_SHOWN]!r}"
    try:
        url = httpx.URL(address)
        named = url.scheme in {"http", "https"} and url.host and "%" not in url.host
        if not named or (url.port or 0) > _MOST_PORTS:
            raise CommandError(wrong)
        here = names_loopback(f"[{url.host}]" if ":" in url.host else url.host)
        verify = httpx.create_ssl_context() if url.scheme == "https" else True
        return httpx.Client(
            base_url=url,
            headers=headers,
            timeout=_TIMEOUT_S,
            verify=verify,
            trust_env=not here,
            transport=transport,
        )
    except httpx.InvalidURL as error:
        raise CommandError(f"{wrong}: {error}") from error
    except (ValueError, ImportError, OSError) as error:
        message = "a proxy or certificates that the environment names (HTTP_PROXY, SSL_CERT_FILE, ...)"
        raise CommandError(f"{message} cannot be used: {error}") from error


def _check_event(event: Mapping[str, str]) -> None:
    """Raise Unavailable if the event says why its stream ends."""
    if event.get("event") == "error":
        raise Unavailable(str(json.loads(event["data"])["error"]["message"]))


def _read(answer: httpx.Response, form: type[_Form], address: str) -> tuple[Any, _Form]:
    """Return a gateway's answer as JSON and in its form. Raises CommandError if another server answers."""
    try:
        content = answer.json()
        return content, form.model_validate(content)
    except (ValueError, RecursionError) as error:
        raise CommandError(_not_interlock(answer, address)) from error


def _error_of(answer: httpx.Response, address: str) -> CommandError | Unavailable:
    try:
        error = ErrorAnswer.model_validate_json(answer.content).error
    except ValidationError:
        # Serve itself answers 404 while the application is not there yet.
        away = answer.status_code == httpx.codes.NOT_FOUND
        if away or answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unavailable(f"{address} answered {answer.status_code}: {_line(answer)}")
        return CommandError(_not_interlock(answer, address))
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable(f"{address} answered {answer.status_code}: {error.message}")
    return CommandError(error.message)


def _not_interlock(answer: httpx.Response, address: str) -> str:
    return (
        f"what answers at {address} is not Interlock, or another version of it: {answer.status_code} "
        f"{_media(answer)} {_line(answer)}; name the gateway with --address or INTERLOCK_ADDRESS"
    )


def _media(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", "without a type"))[:_SHOWN]


def _line(answer: httpx.Response) -> str:
    """Return the beginning of an answer as one line that a terminal can show."""
    text = answer.content[: 4 * _SHOWN].decode(errors="replace")
    return repr("".join(c if c.isprintable() else " " for c in text)[:_SHOWN].strip())


def _user() -> str:
    """Return who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "interlock"
