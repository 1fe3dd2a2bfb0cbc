"""``GET /admin/v1/events``: what happens to releases and engines, as server-sent events.

Each stream long-polls the manager for what came after its last event: a gateway buffers nothing for slow
readers, and what the manager keeps is bounded. A stream ends after a while, as every answer does, for a
gateway that stops waits for its answers. Clients connect again with ``Last-Event-ID`` and miss nothing that
the same manager still keeps; where something is missing, an event says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.api.auth import actor_of
from runtime.api.errors import body_of
from runtime.api.leaving import while_client_stays
from runtime.api.openapi import header, takes
from runtime.api.sending import NotReadError, send_error, send_events, within
from runtime.core.views.changes import ChangeBatch, EngineChange, ReleaseChange
from runtime.errors import InterlockError, Overloaded
from runtime.settings import Settings

MOST = 32
"""How many clients may follow the events of one gateway."""

LIFE_S = 30.0
"""How long a stream lasts; less where a gateway that stops waits less for its answers."""

KEEP_ALIVE_S = 15.0
"""After so long without an event a comment is sent, so that no proxy takes the connection for dead."""

_READER_S = 5.0
"""How much longer than its life a stream may take to be read."""

_AT_ONCE_S = 0.5
"""How long to wait for past events before the stream begins."""

_MOST_DIGITS = 18

LAST_EVENT_ID = header(
    "last-event-id",
    "The id of the last event that is known. What came after it is sent first; where that is not kept any "
    "more, an event `missed` says so.",
    maxLength=64,
)

_DESCRIPTION = (
    "Server-sent events of what happens from now on. `event` is `release` or `engine`, `id` grows, `data` is "
    "JSON in the form described here. `event: missed` says that some are not known, and why (`data` has "
    "`code`, `read_too_slowly` or `manager_gone`, and `message`): read the status. `event: error` is the "
    "last one, where the manager is away; its `data` is like any error of this API, with `code` "
    "`manager_gone`. The stream ends after half a minute at most: connect again. A comment is sent where "
    "nothing has happened for 15 s."
)

_MISSED = {
    "read_too_slowly": "events were read too slowly, or too late: some are not kept any more",
    "manager_gone": "the manager is another one: what happened meanwhile is not known",
}


class Changes(Protocol):
    """Where changes come from: the manager."""

    async def changes(self, after: int | None) -> ChangeBatch:
        """Return what has happened after an id, or after a while nothing. May raise Unavailable."""
        ...


class Places:
    """Bounds how many clients follow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the block. Raises Overloaded: there is none."""
        if self.taken >= self._most:
            raise Overloaded(f"{self._most} clients follow the events of this gateway already")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class EventStream(Response):
    """A stream of events. It gives its place back when its client goes away."""

    media_type = "text/event-stream"

    def __init__(self, source: Changes, places: Places, after: int | None, life: float) -> None:
        self._source = source
        self._places = places
        self._after = after
        self._life = life
        self.background = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, the stream's time is up, or the manager is away."""
        await while_client_stays(receive, self._answer(send))

    async def _answer(self, send: Send) -> None:
        started = False
        try:
            with self._places.place():
                poll = asyncio.ensure_future(self._source.changes(self._after))
                try:
                    # A client that has the newest id would get no headers until something happens.
                    after, limit = self._after, None if self._after is None else _AT_ONCE_S
                    await asyncio.wait({poll}, timeout=limit)
                    if after is None or poll.done():
                        first, pending = poll.result(), None
                    else:
                        first, pending = ChangeBatch(happened=[], last=after), poll
                    started = True
                    await self._send_in_time(first, pending, send)
                finally:
                    poll.cancel()
                    await asyncio.gather(poll, return_exceptions=True)
        except InterlockError as error:
            if started:
                raise
            await send_error(send, error, {})

    async def _send_in_time(
        self, first: ChangeBatch, pending: asyncio.Future[ChangeBatch] | None, send: Send
    ) -> None:
        """Send the stream, and hang up on a client that takes nothing of it."""
        with suppress(NotReadError), within(send, self._life + _READER_S) as send_within:
            await send_events(send_within, self._pieces(first, pending), {})

    async def _pieces(
        self, first: ChangeBatch, pending: asyncio.Future[ChangeBatch] | None
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._life
        # A client that reconnects before its first event misses none either: it has the id it began at.
        begun = first.happened[0].id - 1 if first.happened else first.last
        if first.missed and self._after is not None:
            begun = self._after  # until it is told so: the connection may break in between
        yield b"id: %d\nretry: 1000\n\n" % begun
        if events := _events(first):
            yield events
        last, sent_at = first.last, loop.time()
        poll = pending or asyncio.ensure_future(self._source.changes(last))
        try:
            while (left := end - loop.time()) > 0:
                quiet = sent_at + KEEP_ALIVE_S - loop.time()
                await asyncio.wait({poll}, timeout=max(0.0, min(left, quiet)))
                if poll.done():
                    answer = poll.result()
                    if events := _events(answer):
                        yield events
                        sent_at = loop.time()
                    last = answer.last
                    poll = asyncio.ensure_future(self._source.changes(last))
                elif loop.time() >= sent_at + KEEP_ALIVE_S:
                    yield b": keep-alive\n\n"
                    sent_at = loop.time()
        except InterlockError as error:
            yield _failed(error)
        finally:
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)


def _events(heard: ChangeBatch) -> bytes:
    if heard.missed:
        fields = {"code": heard.missed, "message": _MISSED[heard.missed]}
        return b"id: %d\nevent: missed\ndata: %s\n\n" % (heard.last, orjson.dumps(fields))
    return b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n"
        % (event.id, event.change.kind.encode(), orjson.dumps(event.change.as_json()))
        for event in heard.happened
    )


def _failed(error: InterlockError) -> bytes:
    body = body_of(error)
    body["error"]["code"] = "manager_gone"
    return b"event: error\ndata: %s\n\n" % orjson.dumps(body)


def event_routes(source: Changes, settings: Settings) -> APIRouter:
    """Return the route of events."""
    routes = APIRouter(prefix="/admin/v1")
    places = Places(MOST)
    life = min(LIFE_S, settings.drain_timeout_s)

    @routes.get(
        "/events",
        status_code=200,
        response_class=EventStream,
        responses={200: {"model": ReleaseChange | EngineChange, "description": _DESCRIPTION}},
        openapi_extra=takes(None, LAST_EVENT_ID),
    )
    async def events(request: Request) -> Response:
        actor_of(request, settings)
        return EventStream(source, places, _last_id(request.headers.get("last-event-id", "")), life)

    return routes


def _last_id(last_event_id: str) -> int | None:
    """Return the id of the last event that a client has; None if it is not one of ours."""
    ours = last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) <= _MOST_DIGITS
    return int(last_event_id) if ours else None
