"""Calls from a gateway straight to an engine's replica, past Serve's handle.

A handle call passes a router, a scheduler, pickle and two event loops on either side, and each token of a
stream does so again. Here all calls of a gateway to a replica share one connection and are told in
MessagePack: what is ready together goes in one message, so under load a token costs less, not more. Serve
places, scales, checks and replaces replicas as before: it is asked through the handle where they are, and
whom it has to count or to choose for (autoscaling, a request router of the deployment's own) stays with the
handle.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import random
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple, Protocol

import msgspec

from runtime.engines.port import Body, Chunk
from runtime.errors import EngineLost, InvalidRequest
from runtime.serve.connection import Connection
from runtime.serve.fault import Fault, raise_fault

_log = logging.getLogger(__name__)

_VERSION = 2
"""That of what is sent: replicas of another Interlock are called over the handle."""

_GENERATE = "generate"
_ALLOWED = frozenset({_GENERATE, "classify", "embed", "count"})
"""What requests need of an engine; what its owner needs goes over the handle."""

_CANCEL = ""
_GOING = 0
"""The number of no call: what is told under it is told to the caller as a whole."""

_INTRODUCTION_S = 5.0
"""How long a caller may take to say who it is."""

_BREAK_OFF_S = 1.0
"""How long calls that are broken off may take to end."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
"""What msgspec raises for what is no message."""


class Address(NamedTuple):
    """Where a replica takes calls, and with which secret. It is told over Serve's handle only."""

    replica: str
    host: str
    port: int
    secret: str


class _Hello(NamedTuple):
    """What a gateway says first; a replica answers why it refuses, or nothing."""

    version: int
    secret: str


class _Asked(NamedTuple):
    """A call, or that it is broken off."""

    call: int
    method: str
    args: list[Any]


class _Told(NamedTuple):
    """A part of what a call has come to."""

    call: int
    chunks: list[Chunk] = []  # noqa: RUF012 - a tuple's default, which nobody changes
    value: Any = None
    fault: Fault | None = None
    ended: bool = False


_PACE_S = 0.002
"""How long a part of a stream may wait for others after a message: a hundred streams have no two at once."""

_encode = msgspec.msgpack.Encoder().encode
_hello = msgspec.msgpack.Decoder(_Hello).decode
_refusal = msgspec.msgpack.Decoder(str).decode
_all_asked = msgspec.msgpack.Decoder(list[_Asked]).decode
_all_told = msgspec.msgpack.Decoder(list[_Told]).decode


class _Sender:
    """Sends parts, those that are ready together in one message, while the other end takes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._connection.resumed = self._flush
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._sent = float("-inf")
        self._due: asyncio.Handle | None = None
        self._at = float("inf")
        """When the next message goes out, which ``_due`` is for."""

    def send(self, part: _Asked | _Told, *, paced: bool = False) -> None:
        """Send ``part`` at once; if it is ``paced``, not sooner than ``_PACE_S`` after the message before.

        Raises OverflowError, RecursionError, TypeError, ValueError: it has no form.
        """
        self._waiting.append(_encode(part))
        now = self._loop.time()
        at = max(now, self._sent + _PACE_S) if paced else now
        if at < self._at:
            self._cancel()
            self._at = at
            self._due = self._loop.call_at(at, self._flush) if at > now else self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._cancel()
        if self._waiting and not self._connection.full:
            parts, self._waiting = self._waiting, []
            self._sent = self._loop.time()
            self._connection.send(_array(parts))

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._at = None, float("inf")


def _array(parts: list[bytes]) -> bytes:
    """Return MessagePack's array of what has been encoded already."""
    return b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)


# -- a replica's end ------------------------------------------------------------------------------


class Callee(Protocol):
    """What a replica does for its callers, whichever way their calls come."""

    def engine_stream(self, body: Body) -> AsyncGenerator[list[Chunk] | Fault, None]:
        """Yield what the engine generates; a fault, if any, comes last."""
        ...

    async def engine_call(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name; return its result or a fault."""
        ...


class ChannelServer:
    """Takes calls from gateways that know the secret, ``limit`` of them at once; others wait their turn."""

    def __init__(self, callee: Callee, replica: str, limit: int) -> None:
        self.callee = callee
        self.replica = replica
        self.turns = asyncio.Semaphore(limit)
        self.closing = False
        self._secret = secrets.token_urlsafe(32)
        self._callers: set[_Caller] = set()
        self._listener: asyncio.Server | None = None

    async def open(self, host: str) -> Address:
        """Listen on a free port of ``host``. Raises OSError: there is none."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, 0), family=family)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Caller(self).connection, sock=listening)
        return Address(self.replica, host, listening.getsockname()[1], self._secret)

    async def close(self, grace: float) -> None:
        """Take no more calls; return once those under way have ended. After ``grace`` s break them off."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        for caller in self._callers:
            caller.say_going()
        ended = {caller.ended for caller in self._callers}
        if ended:
            await asyncio.wait(ended, timeout=grace)
            for caller in self._callers:
                caller.hang_up()
            await asyncio.wait(ended, timeout=_BREAK_OFF_S)

    def knows(self, hello: _Hello) -> str:
        """Return why a caller is not let in; empty if it is."""
        if hello.version != _VERSION:
            return f"replica {self.replica} speaks version {_VERSION} of this protocol, not {hello.version}"
        same = hmac.compare_digest(hello.secret.encode(), self._secret.encode())
        return "" if same else "the secret is not this replica's"

    def comes(self, caller: _Caller) -> None:
        """Know of a caller until it is gone."""
        self._callers.add(caller)
        caller.ended.add_done_callback(lambda _: self._callers.discard(caller))


class _Caller:
    """A gateway as a replica knows it. ``ended`` is done when it is gone and its calls have ended."""

    def __init__(self, server: ChannelServer) -> None:
        self._server = server
        self._running: dict[int, asyncio.Task[None]] = {}
        self._known = self._gone = False
        self._loop = asyncio.get_running_loop()
        self.connection = Connection(self._introduced, self._lost, self._comes)
        self._sender = _Sender(self.connection)
        self._patience: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def say_going(self) -> None:
        """Let it call no more."""
        if self._known:
            self._sender.send(_Told(_GOING))
        else:
            self.hang_up()

    def hang_up(self) -> None:
        """Break off its calls."""
        self.connection.close("the replica stops")

    def _comes(self) -> None:
        self._server.comes(self)
        silent = "it does not say who it is"
        self._patience = self._loop.call_later(_INTRODUCTION_S, self.connection.close, silent)

    def _introduced(self, message: bytes) -> None:
        try:
            refusal = self._server.knows(_hello(message))
        except _UNREADABLE:
            refusal = "this is no introduction"
        self.connection.send(_encode(refusal))
        if refusal:
            self.connection.finish(refusal)
            return
        self._wait_no_more()
        self._known = True
        self.connection.heard = self._heard
        self.connection.trust()
        if self._server.closing:
            self.say_going()

    def _heard(self, message: bytes) -> None:
        try:
            every = _all_asked(message)
        except _UNREADABLE:
            _log.exception("what a gateway asks cannot be read")
            self.connection.close("what it asks cannot be read")
            return
        for asked in every:
            self._begin(asked)

    def _lost(self, reason: str) -> None:
        _log.debug("a gateway is gone: %s", reason)
        self._wait_no_more()
        self._gone = True
        for task in self._running.values():
            task.cancel()
        self._end_if_idle()

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _end_if_idle(self) -> None:
        if self._gone and not self._running and not self.ended.done():
            self.ended.set_result(None)

    def _begin(self, asked: _Asked) -> None:
        if asked.method == _CANCEL:
            if asked.call in self._running:
                self._running[asked.call].cancel()
            return
        if self._server.closing:
            gone = Fault(EngineLost.__name__, f"replica {self._server.replica} stops")
            self._sender.send(_Told(asked.call, fault=gone, ended=True))
            return
        if asked.call in self._running:
            self.connection.close(f"its call {asked.call} is under way already")
            return
        task = asyncio.create_task(self._run(asked))
        self._running[asked.call] = task
        task.add_done_callback(lambda _: self._forget(asked.call))

    def _forget(self, call: int) -> None:
        del self._running[call]
        self._end_if_idle()

    async def _run(self, asked: _Asked) -> None:
        try:
            async with self._server.turns:
                await answer(self._server.callee, asked, self._sender)
        except Exception as error:  # noqa: BLE001 - as with any server, what breaks one call ends that one
            _log.exception("the call of %s broke", asked.method)
            fault = Fault("EngineUnavailable", f"the call broke: {type(error).__name__}: {error}")
            self._sender.send(_Told(asked.call, fault=fault, ended=True))


async def answer(callee: Callee, asked: _Asked, sender: _Sender) -> None:
    """Do what is asked of a replica, and tell what comes of it as it comes."""
    if asked.method not in _ALLOWED:
        unknown = Fault("EngineUnavailable", f"requests have no call {asked.method!r}")
        sender.send(_Told(asked.call, fault=unknown, ended=True))
    elif asked.method == _GENERATE:
        paced = False
        async with aclosing(callee.engine_stream(*asked.args)) as generated:
            async for item in generated:
                if isinstance(item, Fault):
                    sender.send(_Told(asked.call, fault=item))
                else:
                    sender.send(_Told(asked.call, item), paced=paced)
                paced = True  # the first token goes out at once, and the end
        sender.send(_Told(asked.call, ended=True))
    else:
        result = await callee.engine_call(asked.method, *asked.args)
        fault = result if isinstance(result, Fault) else None
        sender.send(_Told(asked.call, value=None if fault else result, fault=fault, ended=True))


# -- a gateway's end ------------------------------------------------------------------------------


class _Parts:
    """What a call has been told and nobody has taken yet."""

    __slots__ = ("_loop", "_told", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: list[_Told] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, told: _Told) -> None:
        """Add a part, and wake whoever waits for one."""
        self._told.append(told)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[_Told]:
        """Return what is there, once there is something. For one task at a time."""
        if not self._told:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        told, self._told = self._told, []
        return told


class Channel:
    """One replica, at the other end of a connection; ``ended`` is called when it takes no more calls."""

    def __init__(self, address: Address, ended: Callable[[Channel], None]) -> None:
        self.replica = address.replica
        self._address = address
        self._ended = ended
        self._lost = ""
        """Why it takes no more calls."""
        self._numbers = itertools.count(_GOING + 1)
        self._calls: dict[int, _Parts] = {}
        self._connection = Connection(self._answered, self._hung_up)
        self._sender = _Sender(self._connection)
        self._let_in: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it is not, or nothing."""

    async def open(self) -> None:
        """Return once the replica has taken the connection. Raises EngineLost: it does not."""
        _, host, port, secret = self._address
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._connection, host, port)
        except OSError as error:
            raise EngineLost(f"replica {self.replica} takes no connection: {error}") from error
        except asyncio.CancelledError:
            self._connection.give_up()
            raise
        self._connection.send(_encode(_Hello(_VERSION, secret)))
        # One that stops may say so in the same breath.
        refusal = await self._let_in or self._lost
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
        with self._call(_GENERATE, body) as parts:
            ended = False
            while not ended:
                told = await parts.take()
                chunks = [chunk for part in told for chunk in part.chunks]
                if chunks:
                    yield chunks
                for part in told:
                    if part.fault is not None:
                        raise_fault(part.fault)
                ended = told[-1].ended

    async def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name."""
        with self._call(method, *args) as parts:
            (told,) = await parts.take()
            if told.fault is not None:
                raise_fault(told.fault)
            return told.value

    @contextmanager
    def _call(self, method: str, *args: Any) -> Iterator[_Parts]:
        """Begin a call; break it off if it has not ended when it is left."""
        if self._lost:
            raise EngineLost(f"replica {self.replica} takes no more calls: {self._lost}")
        number, parts = next(self._numbers), _Parts()
        try:
            self._sender.send(_Asked(number, method, list(args)))
        except (OverflowError, RecursionError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the body holds what no engine can be told: {error}") from error
        self._calls[number] = parts
        try:
            yield parts
        finally:
            if self._calls.pop(number, None) is not None:
                self._sender.send(_Asked(number, _CANCEL, []))
            self._hang_up_if_idle()

    # -- what the connection tells ----------------------------------------------------------------

    def _answered(self, message: bytes) -> None:
        """Hear whether the replica has let this gateway in."""
        try:
            refusal = _refusal(message)
        except _UNREADABLE:
            refusal = "it answers in another way"
        if not refusal:
            self._connection.heard = self._heard
            self._connection.trust()
        if not self._let_in.done():
            self._let_in.set_result(refusal)

    def _heard(self, message: bytes) -> None:
        try:
            every = _all_told(message)
        except _UNREADABLE as error:
            _log.exception("what replica %s sends cannot be read", self.replica)
            self._connection.close(f"what it sends cannot be read: {error}")
            return
        for told in every:
            self._hear(told)

    def _hear(self, told: _Told) -> None:
        if told.call == _GOING:
            self._end("it stops")
            self._hang_up_if_idle()
        elif told.call in self._calls:
            self._calls[told.call].put(told)
            if told.ended:
                del self._calls[told.call]
                self._hang_up_if_idle()

    def _hung_up(self, reason: str) -> None:
        """Tell all that waits for an answer that none comes."""
        self._end(reason)
        if not self._let_in.done():
            self._let_in.set_result(reason)
        fault = Fault(EngineLost.__name__, f"replica {self.replica}, which had the call, is gone: {reason}")
        calls, self._calls = self._calls, {}
        for number, parts in calls.items():
            parts.put(_Told(number, fault=fault, ended=True))

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
    """Return, by lot, one of those that have the fewest calls under way; None if there is no channel."""
    if not channels:
        return None
    fewest = min(channel.in_flight for channel in channels)
    return random.choice([channel for channel in channels if channel.in_flight == fewest])  # noqa: S311 - a lot
