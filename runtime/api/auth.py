"""Who calls: operators of ``/admin`` by the admin key or by place, clients of ``/v1`` by an API key."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from starlette.requests import Request

from runtime.api.keys import Keys
from runtime.api.loopback import stranger
from runtime.clock import Clock
from runtime.core.requests.keys import OPEN, Caller, digest_of, is_secret
from runtime.errors import AccessDenied, StoreUnavailable, Unauthenticated
from runtime.settings import Settings

KEPT_S = 2.0
"""How long an answer of the store is used: a revoked key stops within this time."""

_MOST = 10_000
"""How many answers are kept; made-up keys must not fill the memory."""
_PATIENCE_S = 2.0
"""How long a request waits for the store to look its key up: its deadline is not known yet."""
_MAX_ACTOR = 128
_PROXIES = "a proxy here that adds no x-forwarded-for lets in everybody whom it forwards"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def actor_of(request: Request, settings: Settings) -> str:
    """Let an admin call through, with the key if one is set, else from loopback only; return who calls.

    Raises:
        AccessDenied: anything else.

    """
    named = request.headers.get("x-interlock-actor", "")
    named = named if named.isascii() and named.isprintable() and len(named) <= _MAX_ACTOR else ""
    if settings.admin_key is not None:
        given = _bearer_of(request)
        if not secrets.compare_digest(given.encode(), settings.admin_key.get_secret_value().encode()):
            problem = "what came is another" if given else "none came with the call"
            message = (
                f"this needs the admin key as a bearer token: {problem}; the interlock command sends what "
            )
            message += "INTERLOCK_ADMIN_KEY says where it runs, which must be what it says on the Ray nodes"
            raise AccessDenied(message, code="invalid_admin_key")
        return named or "admin key"
    if (who := stranger(request, settings)) is not None:
        message = f"no admin key is set, so admin calls are answered on loopback only, not {_from(who)}"
        raise AccessDenied(message, code="admin_loopback_only")
    return named or "loopback"


class Callers:
    """Knows who makes a request. Answers of the store are cached for ``KEPT_S``."""

    def __init__(self, keys: Keys, clock: Clock, settings: Settings) -> None:
        self._settings = settings
        self._found = _Kept(keys.find, clock)
        self._any = _Kept(lambda _: keys.has_any(), clock)

    async def caller_of(self, request: Request) -> Caller:
        """Return who calls: whose key it is, or somebody on this host while there are no keys.

        Raises:
            Unauthenticated: there are keys, and the request comes with none of them.
            AccessDenied: there are no keys, and it comes from elsewhere.
            StoreUnavailable: the keys cannot be looked up.

        """
        secret = _bearer_of(request)
        key = await self._found.get(digest_of(secret)) if is_secret(secret) else None
        if key is not None and key.revoked is None:
            return key.caller
        if await self._any.get(""):
            raise Unauthenticated(_refusal(secret, revoked=key is not None), code="invalid_api_key")
        pages = self._settings.cors_origins
        if (who := stranger(request, self._settings, pages)) is not None:
            message = f"there are no API keys, so only this host is answered, not {_from(who)}"
            raise AccessDenied(f"{message}; make one: interlock keys create", code="loopback_only")
        return OPEN


async def warn_if_open(keys: Keys, settings: Settings) -> None:
    """Warn in the log of what this host may call without a key. Raises StoreUnavailable."""
    if settings.admin_key is None:
        _log.warning(
            "no admin key is set: /admin and /metrics answer whoever asks on this host; %s; "
            "set one with INTERLOCK_ADMIN_KEY",
            _PROXIES,
        )
    if not await keys.has_any():
        _log.warning(
            "there are no API keys: /v1 answers whoever asks on this host, and nobody else; %s; "
            "make one with: interlock keys create --tenant NAME",
            _PROXIES,
        )


class _Kept(Generic[_T]):
    """Answers to a question, each used until it is ``KEPT_S`` old. All who ask meanwhile share one."""

    def __init__(self, fetch: Callable[[str], Awaitable[_T]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: dict[str, tuple[float, asyncio.Task[_T]]] = {}

    async def get(self, name: str) -> _T:
        """Return the answer for ``name``. Raises StoreUnavailable, which is not kept."""
        now = self._clock.now()
        begun, answer = self._held.get(name, (0.0, None))
        if answer is None or now - begun >= KEPT_S or _failed(answer):
            answer = asyncio.create_task(self._fetched(name))
            self._hold(name, now, answer)
        # A client that goes away must not cancel the lookup that others wait for.
        return await asyncio.shield(answer)

    async def _fetched(self, name: str) -> _T:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._fetch(name)
        except TimeoutError as error:
            raise StoreUnavailable(f"the store did not answer within {_PATIENCE_S:g} s") from error

    def _hold(self, name: str, now: float, answer: asyncio.Task[_T]) -> None:
        """Keep an answer by the time of its question: it may be as old as that."""
        self._held.pop(name, None)
        self._held[name] = (now, answer)
        while len(self._held) > _MOST or now - next(iter(self._held.values()))[0] >= KEPT_S:
            del self._held[next(iter(self._held))]  # the oldest is first


def _failed(answer: asyncio.Task[_T]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


def _refusal(secret: str, *, revoked: bool) -> str:
    if revoked:
        return "this API key has been revoked; ask for a new one"
    if secret:
        return "this API key is not known here"
    return "an API key is needed: send it as Authorization: Bearer il-..."


def _bearer_of(request: Request) -> str:
    """Return the bearer token; empty without one. The scheme is in any case, and spaces may follow."""
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].strip().partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _from(who: str) -> str:
    return who if who.startswith("through ") else f"from {who}"
