"""A gateway's end of the channels: its calls go straight to a replica, past Serve's handle.

A handle call passes a router, a scheduler, pickle and two event loops on either side, and each token of a
stream does so again. Here all calls of a gateway to a replica share one connection, in MessagePack:
what is ready together goes in one message, so under load a token costs less, not more. Serve
places, scales, checks and replaces replicas as before: their addresses are asked for through the handle, and
engines whose calls Serve must count or route (autoscaling, a request router of their own) keep the handle.

Nor does a gateway that cannot be reached any more keep anybody waiting: Ray reports the reply of a handle
call to its caller, and a process that does so stands still until Ray knows that the caller's node is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from runtime.channel.connection import SILENT_S, Connection
from runtime.channel.fault import Fault, raise_fault
from runtime.channel.wire import (
    CANCEL,
    GENERATE,
    GOAWAY,
    UNENCODABLE,
    UNREADABLE,
    VERSION,
    Address,
    CallFrame,
    Hello,
    ReplyFrame,
    Sender,
    decode_refusal,
    decode_replies,
    encode,
)
from runtime.engines.port import Body, Chunk
from runtime.errors import EngineLost, InvalidRequest

_log = logging.getLogger(__name__)


class _Replies:
    """The replies to a call that have arrived and nobody has taken yet."""

    __slots__ = ("_arrived", "_loop", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: list[ReplyFrame] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, reply: ReplyFrame) -> None:
        """Add a part, and wake whoever waits for one."""
        self._arrived.append(reply)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[ReplyFrame]:
        """Return what is there, once there is something. For one task at a time."""
        if not self._arrived:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        arrived, self._arrived = self._arrived, []
        return arrived


class Channel:
    """One replica, at the other end of a connection; ``ended`` is called when it takes no more calls.

    One that is silent for ``silent_s`` is lost.
    """

    def __init__(
        self,
        address: Address,
        ended: Callable[[Channel], None],
        silent_s: float = SILENT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.replica = address.replica
        self._address = address
        self._ended = ended
        self._lost = ""
        """Why it takes no more calls."""
        self._numbers = itertools.count(GOAWAY + 1)
        self._calls: dict[int, _Replies] = {}
        self._connection = Connection(self._on_handshake, self._on_lost, silent_s=silent_s)
        self._sender = Sender(self._connection)
        self._handshake: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the replica refuses this gateway; empty if it admits it."""

    async def open(self) -> None:
        """Return once the replica has taken the connection. Raises EngineLost: it does not."""
        _, host, port, secret = self._address
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self._connection, host, port, ssl=self._tls)
        except OSError as error:
            raise EngineLost(f"replica {self.replica} takes no connection: {error}") from error
        except asyncio.CancelledError:
            self._connection.give_up()
            raise
        self._connection.send(encode(Hello(VERSION, secret)))
        # A replica that stops may say so right behind its answer.
        refusal = await self._handshake or self._lost
        if refusal:
            raise EngineLost(f"replica {self.replica} takes no connection: {refusal}")

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    async def close(self) -> None:
        """End the connection, and what is still under way on it."""
        self._hang_up()
        await self._connection.wait_closed()

    def _hang_up(self) -> None:
        self._end("the gateway has closed the connection")
        self._connection.close("the gateway has closed the connection")

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield what the replica generates, what is ready together at once; closing this aborts it there."""
        with self._call(GENERATE, body) as replies:
            ended = False
            while not ended:
                arrived = await replies.take()
                chunks = [chunk for reply in arrived for chunk in reply.chunks]
                if chunks:
                    yield chunks
                for reply in arrived:
                    if reply.fault is not None:
                        raise_fault(reply.fault)
                ended = arrived[-1].ended

    async def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name."""
        with self._call(method, *args) as replies:
            (reply,) = await replies.take()
            if reply.fault is not None:
                raise_fault(reply.fault)
            return reply.value

    @contextmanager
    def _call(self, method: str, *args: Any) -> Iterator[_Replies]:
        """Begin a call; break it off if it has not ended when it is left."""
        if self._lost:
            raise EngineLost(f"replica {self.replica} takes no more calls: {self._lost}")
        number, replies = next(self._numbers), _Replies()
        try:
            self._sender.send(CallFrame(number, method, list(args)))
        except UNENCODABLE as error:
            raise InvalidRequest(f"the body holds what cannot be sent to an engine: {error}") from error
        self._calls[number] = replies
        try:
            yield replies
        finally:
            if self._calls.pop(number, None) is not None:
                self._sender.send(CallFrame(number, CANCEL, []))
            self._hang_up_if_idle()

    # -- the connection's callbacks ---------------------------------------------------------------

    def _on_handshake(self, message: bytes) -> None:
        """Take the replica's answer to the hello: whether it admits this gateway."""
        try:
            refusal = decode_refusal(message)
        except UNREADABLE:
            refusal = "it speaks another protocol"
        if not refusal:
            self._connection.on_message = self._on_replies
            self._connection.trust()
        if not self._handshake.done():
            self._handshake.set_result(refusal)

    def _on_replies(self, message: bytes) -> None:
        try:
            every = decode_replies(message)
        except UNREADABLE as error:
            _log.warning(
                "messages of replica %s cannot be read; its connection is closed: %s", self.replica, error
            )
            self._connection.close(f"what it sends cannot be read: {error}")
            return
        for reply in every:
            self._on_reply(reply)

    def _on_reply(self, reply: ReplyFrame) -> None:
        if reply.number == GOAWAY:
            self._end("it stops")
            self._hang_up_if_idle()
        elif reply.number in self._calls:
            self._calls[reply.number].put(reply)
            if reply.ended:
                del self._calls[reply.number]
                self._hang_up_if_idle()

    def _on_lost(self, reason: str) -> None:
        """End all calls that wait for an answer: none comes."""
        self._end(reason)
        if not self._handshake.done():
            self._handshake.set_result(reason)
        fault = Fault(EngineLost.__name__, f"replica {self.replica}, which had the call, is gone: {reason}")
        calls, self._calls = self._calls, {}
        for number, replies in calls.items():
            replies.put(ReplyFrame(number, fault=fault, ended=True))

    def _end(self, reason: str) -> None:
        if not self._lost:
            self._lost = reason
            self._ended(self)

    def retire(self) -> None:
        """Take no more calls, and end the connection once the last has ended."""
        self._end("it is called no more")
        self._hang_up_if_idle()

    def _hang_up_if_idle(self) -> None:
        if self._lost and not self._calls:
            self._hang_up()


def least_busy(channels: Collection[Channel]) -> Channel | None:
    """Return one of those with the fewest calls under way, at random; None if there is no channel."""
    if not channels:
        return None
    fewest = min(channel.in_flight for channel in channels)
    return random.choice([channel for channel in channels if channel.in_flight == fewest])  # noqa: S311 - a lot
