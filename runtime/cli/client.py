"""The admin API over HTTP, with the command line's errors."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

_TIMEOUT_S = 10.0
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
        self._http = httpx.Client(
            base_url=self._address, headers=headers, timeout=_TIMEOUT_S, trust_env=False, transport=transport
        )

    def status(self) -> dict[str, Any]:
        """Return the control state."""
        return self._ask("GET", "status")

    def ready(self) -> bool:
        """Say whether the gateway that answers takes requests."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        return self._ask("GET", "health")

    def releases(self) -> tuple[dict[str, Any], str]:
        """Return the releases and their etag."""
        releases = self._ask("GET", "releases")
        return releases, f'"{releases["edition"]}"'

    def command(self, path: str, etag: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Carry ``path`` (such as ``releases/3/promote``) out, as decided by ``etag``."""
        return self._ask("POST", path, body, {"if-match": etag})

    def plan(self, model_set: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to ``model_set`` would do."""
        return self._ask("POST", "plans", {"model_set": model_set}, timeout=_PLAN_TIMEOUT_S)

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        entries: list[dict[str, Any]] = self._ask("GET", f"audit?limit={limit}")["entries"]
        return entries

    def create_key(self, tenant: str, name: str, budgets: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Make an API key with budgets of its own; its secret is in the answer, under ``key``."""
        return self._ask("POST", "keys", {"tenant": tenant, "name": name, "budgets": list(budgets)})

    def keys(self) -> list[dict[str, Any]]:
        """Return every API key that ever was, without its secret."""
        keys: list[dict[str, Any]] = self._ask("GET", "keys")["keys"]
        return keys

    def budgets(self) -> list[dict[str, Any]]:
        """Return every budget and limit, and how it stands."""
        budgets: list[dict[str, Any]] = self._ask("GET", "budgets")["budgets"]
        return budgets

    def set_budget(self, budget: Mapping[str, Any]) -> list[str]:
        """Set a budget or a limit; return what to know about it."""
        warnings: list[str] = self._ask("PUT", "budgets", budget)["warnings"]
        return warnings

    def remove_budget(self, budget: int) -> None:
        """Remove a budget or a limit."""
        self._ask("DELETE", f"budgets/{budget}")

    def usage(self, by: str, since: float) -> list[dict[str, Any]]:
        """Return requests, hops and tokens since then (seconds since the Unix epoch), by group."""
        usage: list[dict[str, Any]] = self._ask("GET", f"usage?by={by}&since={since}")["usage"]
        return usage

    def forecast(self) -> list[dict[str, Any]]:
        """Return for every budget and limit when it runs out at the present rate."""
        forecast: list[dict[str, Any]] = self._ask("GET", "usage/forecast")["forecast"]
        return forecast

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """End an API key and return it."""
        return self._ask("DELETE", f"keys/{quote(key_id, safe='')}")

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        try:
            answer = self._http.request(
                method, f"/admin/v1/{path}", json=body, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            message = f"no gateway answers at {self._address} ({error}); is the application deployed?"
            raise Unavailable(message) from error
        if answer.is_success:
            result: dict[str, Any] = answer.json()
            return result
        raise _error_of(answer, self._address)


def _error_of(answer: httpx.Response, address: str) -> CommandError | Unavailable:
    told = _told(answer)
    # Serve itself answers 404 while the application is not there yet; the admin API's have a code.
    away = answer.status_code == httpx.codes.NOT_FOUND and not told.get("code")
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or away:
        return Unavailable(f"{address} answered {answer.status_code}: {answer.text[:200]}")
    return CommandError(str(told.get("message") or f"{address} refused: {answer.text[:500]}"))


def _told(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}


def _user() -> str:
    """Return who runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "interlock"
