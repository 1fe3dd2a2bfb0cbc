"""Answering a request, in whatever form: one response object that owns it from lease to last byte."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.api.form import AnswerHead, AnswerTrailer, NewForm, ReadRequest
from runtime.api.headers import answer_headers, timing_headers
from runtime.api.leaving import while_client_stays
from runtime.api.sending import NotReadError, send_error, send_events, send_json, within
from runtime.core.requests.ask import Ask
from runtime.errors import InterlockError
from runtime.traffic.admission import Admission
from runtime.traffic.chain import ChainCall
from runtime.walking.context import RequestContext

_log = logging.getLogger(__name__)

READER_SECONDS = 5.0
"""How much longer than its chain's deadline a client may take to read its answer."""


class ChainResponse(Response):
    """Runs the request when it is sent.

    The lease is taken and closed in this one call. Were it taken in the route and closed by the
    response's body iterator, a client that goes away in between would leave it open: an iterator
    that was never started has no ``finally``.
    """

    def __init__(self, admission: Admission, context: RequestContext, raw: bytes, read: ReadRequest) -> None:
        self._admission = admission
        self._context = context
        self._raw = raw
        self._read_request = read
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        """Answer the request; stop all work for it as soon as the client goes away."""
        await while_client_stays(receive, self._traced(send))

    async def _traced(self, send: Send) -> None:
        with self._context.traced():
            await self._answer(send)

    async def _answer(self, send: Send) -> None:
        call, started = None, False
        try:
            ask, new_form = await self._read()
            call = await self._admission.admit(ask, self._context)
            try:
                await call.start()
                started = True
                await self._send_in_time(call, new_form, send)
            finally:
                await call.aclose()
        except InterlockError as error:
            if started:
                raise
            self._context.span.failed(error)
            await send_error(send, error, timing_headers(_trailer_of(call)) if call else {})

    async def _read(self) -> tuple[Ask, NewForm]:
        try:
            return await self._read_request(self._raw)
        except InterlockError as error:
            self._admission.turned_away(error)
            raise

    async def _send_in_time(self, call: ChainCall, new_form: NewForm, send: Send) -> None:
        """Send the answer, and hang up on a client that does not read it."""
        try:
            with within(send, call.left + READER_SECONDS) as send_within:
                if call.ask.stream:
                    await send_events(send_within, _events(call, new_form), answer_headers(call))
                else:
                    await _send_body(call, new_form, send_within)
        except NotReadError:
            _log.info(
                "request %s: the client did not read its answer in time; the connection is closed",
                self._context.id,
            )


async def _send_body(call: ChainCall, new_form: NewForm, send: Send) -> None:
    members = b""
    try:
        async for chunks in call.chunks():
            members = next((chunk.members for chunk in reversed(chunks) if chunk.members), members)
    except InterlockError as error:
        await call.settle()
        await send_error(send, error, answer_headers(call) | timing_headers(_trailer_of(call)))
        return
    await call.settle()
    trailer = _trailer_of(call)
    body = new_form(_head_of(call)).body(members, trailer)
    await send_json(send, 200, body, answer_headers(call) | timing_headers(trailer))


async def _events(call: ChainCall, new_form: NewForm) -> AsyncIterator[bytes]:
    """Yield the events of a streamed answer, those that are ready together in one piece."""
    form = new_form(_head_of(call))
    try:
        async for chunks in call.chunks():
            if ready := form.events(chunks):
                yield ready
    except InterlockError as error:
        await call.settle()
        yield form.error_events(error, _trailer_of(call))
        return
    await call.settle()
    yield form.last_events(_trailer_of(call))


def _head_of(call: ChainCall) -> AnswerHead:
    return AnswerHead(call.context.id, call.ask.chain, int(time.time()))


def _trailer_of(call: ChainCall) -> AnswerTrailer:
    """Return what an answer ends with; its end is now."""
    return AnswerTrailer(call.release, call.hops, call.usage, call.latency())
