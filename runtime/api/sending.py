"""Sending answers below the framework: whole, as server-sent events, and within a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from runtime.api.errors import body_of, headers_of, status_of
from runtime.engines.time_limit import TimeLimit
from runtime.errors import InterlockError

UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Tells caches and nginx not to buffer a stream."""


class NotReadError(Exception):
    """A client has not read its answer in time."""


@contextmanager
def within(send: Send, seconds: float) -> Iterator[Send]:
    """Give a ``send`` that raises NotReadError once a client has had so many seconds for its whole answer.

    Behind HAProxy a full connection holds a send up for as long as its client likes: for an hour the
    request kept its lease, which held its release, and a gateway that should stop.
    """
    limit = TimeLimit(seconds)

    async def send_within(message: Message) -> None:
        try:
            with limit:
                await send(message)
        except TimeoutError as error:
            raise NotReadError from error

    try:
        yield send_within
    finally:
        limit.close()


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a JSON body."""
    await send(_start(status, "application/json", {**headers, "content-length": str(len(body))}))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, error: InterlockError, headers: dict[str, str]) -> None:
    """Send an error in OpenAI's shape, with its own headers and these."""
    await send_json(send, status_of(error), orjson.dumps(body_of(error)), headers_of(error) | headers)


async def send_events(send: Send, pieces: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    """Send a stream of server-sent events, whose ``pieces`` are closed whatever becomes of it."""
    await send(_start(200, "text/event-stream; charset=utf-8", {**headers, **UNBUFFERED}))
    async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]
        async for piece in open_pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(status: int, media_type: str, headers: Mapping[str, str]) -> Message:
    head = MutableHeaders(headers)
    head["content-type"] = media_type
    return {"type": "http.response.start", "status": status, "headers": head.raw}
