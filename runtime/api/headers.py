"""Headers: a request's id and conversation; an answer's release, limits and times."""

from __future__ import annotations

import uuid

from starlette.requests import Request

from runtime.api.form import AnswerTrailer
from runtime.core.budgets.budget import Grant, Unit
from runtime.errors import InvalidRequest
from runtime.observe.server_timing import NAME
from runtime.traffic.chain import ChainCall

REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID = 128

SESSION = "x-interlock-session"
_MAX_SESSION = 128


def request_id_of(request: Request) -> str:
    """Return the request's id if it is a sane one, else a new one.

    Serve's own middleware gives every request an id and puts it on every response, so neither is
    done here: the header would be there twice.
    """
    given = request.headers.get(REQUEST_ID, "")
    sane = 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable()
    return given if sane else uuid.uuid4().hex


def session_of(request: Request) -> str:
    """Return the id of the conversation that a request belongs to, which is its tenant's own; empty without.

    Raises:
        InvalidRequest: it is malformed. Unlike a request's id it is not replaced by a new one: what is
            spent would count for nobody.

    """
    given = request.headers.getlist(SESSION)
    if not given:
        return ""
    session, *more = given
    if more or not (0 < len(session) <= _MAX_SESSION and session.isascii() and session.isprintable()):
        message = f"{SESSION} must be one id of 1 to {_MAX_SESSION} printable ASCII characters"
        raise InvalidRequest(message, param=SESSION)
    return session


def answer_headers(call: ChainCall) -> dict[str, str]:
    """Return the headers that name the release, and how the caller's limits stand."""
    return {
        "x-interlock-release": str(call.release.number),
        "x-interlock-model-set": call.release.model_set,
        **limit_headers(call.standing),
    }


def limit_headers(standing: Grant | None) -> dict[str, str]:
    """Return how the caller's limits per minute stand, in OpenAI's headers; none without such limits."""
    headers: dict[str, str] = {}
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        tightest = standing.tightest(unit) if standing is not None else None
        if tightest is not None:
            limit, remaining, reset = tightest
            headers[f"x-ratelimit-limit-{unit.value}"] = str(limit)
            headers[f"x-ratelimit-remaining-{unit.value}"] = str(remaining)
            headers[f"x-ratelimit-reset-{unit.value}"] = f"{reset:.3f}s"
    return headers


def timing_headers(trailer: AnswerTrailer) -> dict[str, str]:
    """Return the ``Server-Timing`` header; none if no hop has run."""
    return {NAME: trailer.server_timing} if trailer.hops else {}
