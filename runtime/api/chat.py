"""``POST /v1/chat/completions``: one response object that owns the request from lease to last byte."""

from __future__ import annotations

import logging
import uuid

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.api.chat_request import read_chat_request
from runtime.api.completion import answer_headers, events, timing_headers, whole
from runtime.api.leaving import while_client_stays
from runtime.api.sending import NotReadError, send_error, send_events, send_whole, within
from runtime.api.trace_context import trace_context_of
from runtime.core.requests.keys import Caller
from runtime.errors import InterlockError, InvalidRequest
from runtime.observe.tracing import RequestSpan, TraceContext
from runtime.traffic.admission import Admission
from runtime.traffic.chain import ChainCall, ChatRequest

_log = logging.getLogger(__name__)

READER_SECONDS = 5.0
"""How much longer than its chain's deadline a client may take to read its answer."""

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
        InvalidRequest: it is none. Another one cannot be made up for it, as for a request's id: what is
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


class ChatResponse(Response):
    """Runs the request when it is sent.

    The lease is taken and closed in this one call. Were it taken in the route and closed by the
    response's body iterator, a client that goes away in between would leave it open: an iterator
    that was never started has no ``finally``.
    """

    def __init__(
        self,
        admission: Admission,
        raw: bytes,
        request_id: str,
        caller: Caller,
        arrived: float,
        session: str = "",
    ) -> None:
        self._admission = admission
        self._raw = raw
        self._request_id = request_id
        self._caller = caller
        self._arrived = arrived
        self._session = session
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; stop all work for it as soon as the client goes away."""
        await while_client_stays(receive, self._traced(trace_context_of(Headers(scope=scope)), send))

    async def _traced(self, context: TraceContext, send: Send) -> None:
        with self._admission.traced(self._request_id, context, self._arrived) as span:
            await self._answer(span, send)

    async def _answer(self, span: RequestSpan, send: Send) -> None:
        call, started = None, False
        try:
            request = await self._read()
            call = await self._admission.admit(request, self._arrived, span)
            try:
                await call.start()
                started = True
                await self._send_in_time(call, send)
            finally:
                await call.aclose()
        except InterlockError as error:
            if started:
                raise
            span.failed(error)
            await send_error(send, error, timing_headers(call) if call else {})

    async def _read(self) -> ChatRequest:
        try:
            return await read_chat_request(self._raw, self._request_id, self._caller, self._session)
        except InterlockError as error:
            self._admission.turned_away(error)
            raise

    async def _send_in_time(self, call: ChainCall, send: Send) -> None:
        """Send the answer, and hang up on a client that does not read it."""
        try:
            with within(send, call.left + READER_SECONDS) as send_within:
                await _send_answer(call, send_within)
        except NotReadError:
            _log.info("request %s: its client does not read its answer", self._request_id)


async def _send_answer(call: ChainCall, send: Send) -> None:
    if call.request.stream:
        await send_events(send, events(call), answer_headers(call))
        return
    try:
        body, headers = await whole(call)
    except InterlockError as error:
        await send_error(send, error, answer_headers(call) | timing_headers(call))
        return
    await send_whole(send, 200, body, headers)
