"""The protocol of a channel, and how parts of many calls share messages."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from runtime.channel.connection import GREATEST, Connection
from runtime.channel.fault import Fault
from runtime.engines.port import Chunk

VERSION = 3
"""Version of the protocol. A caller with another is refused, and calls the engine over its handle."""

GENERATE = "generate"
"""The call whose answer is a stream."""

CANCEL = ""
"""The method that cancels a call."""

GOAWAY = 0
"""The number of no call: a reply with it tells the caller that the replica takes no more calls."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the decoders raise for a malformed message."""

UNENCODABLE = (OverflowError, RecursionError, TypeError, ValueError)
"""What encoding raises for values that MessagePack has no form for."""


class Address(NamedTuple):
    """Where a replica takes calls, and with which secret. Only what Ray guards may carry it."""

    replica: str
    host: str
    port: int
    secret: str


class Hello(NamedTuple):
    """A caller's first message; a replica answers why it refuses, or with an empty text."""

    version: int
    secret: str


class CallFrame(NamedTuple):
    """A call, or its cancellation."""

    number: int
    method: str
    args: list[Any]


class ReplyFrame(NamedTuple):
    """A part of the answer to a call."""

    number: int
    chunks: list[Chunk] = []  # noqa: RUF012 - a tuple's default, which nobody changes
    value: Any = None
    fault: Fault | None = None
    ended: bool = False


_PACE_S = 0.002
"""How long a part of a stream may wait for others after a message: a hundred streams have no two at once."""

_PART = GREATEST // 2
"""The largest part, in bytes."""

_MOST_WAITING = GREATEST // 4
"""Bytes that may be queued while the other end reads none; with one part more they fit into one message."""

encode = msgspec.msgpack.Encoder().encode
decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_refusal = msgspec.msgpack.Decoder(str).decode
decode_calls = msgspec.msgpack.Decoder(list[CallFrame]).decode
decode_replies = msgspec.msgpack.Decoder(list[ReplyFrame]).decode


class Sender:
    """Sends calls or replies, what is ready together in one message, while the other end takes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._connection.on_resumed = self._flush
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._sent = float("-inf")
        self._due: asyncio.Handle | None = None
        self._at = float("inf")
        """When the next message goes out, which ``_due`` is for."""

    def send(self, part: CallFrame | ReplyFrame, *, paced: bool = False) -> None:
        """Send ``part`` at once; if it is ``paced``, not sooner than ``_PACE_S`` after the message before.

        Raises one of ``UNENCODABLE``: it cannot be encoded.
        """
        encoded = encode(part)
        if len(encoded) > _PART:
            raise ValueError(f"{len(encoded)} bytes are more than a message takes")
        if self._bytes > _MOST_WAITING:
            self._connection.close(f"{self._bytes} bytes are queued for it, and it reads none")
        self._waiting.append(encoded)
        self._bytes += len(encoded)
        now = self._loop.time()
        at = max(now, self._sent + _PACE_S) if paced else now
        if at < self._at:
            self._cancel()
            self._at = at
            self._due = self._loop.call_at(at, self._flush) if at > now else self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._cancel()
        if self._waiting and not self._connection.full:
            parts, self._waiting, self._bytes = self._waiting, [], 0
            self._sent = self._loop.time()
            self._connection.send(_array(parts))

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._at = None, float("inf")


def _array(parts: list[bytes]) -> bytes:
    """Return MessagePack's array of what has been encoded already."""
    return b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)
