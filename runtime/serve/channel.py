"""Calls from a gateway straight to an engine's replica, past Serve's handle.

A handle call passes a router, a scheduler, pickle and two event loops on either side, and each token of a
stream does so again. Here all calls of a gateway to a replica share one bidirectional gRPC stream of
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
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple, Protocol

import grpc
import msgspec

from runtime.engines.port import Body, Chunk
from runtime.errors import EngineLost, InvalidRequest
from runtime.serve.fault import Fault, raise_fault

_log = logging.getLogger(__name__)

_SERVICE, _CALLS = "interlock.Engine.v1", "Calls"
"""The version is that of what is sent: replicas of another Interlock are called over the handle."""

_GENERATE = "generate"
_ALLOWED = frozenset({_GENERATE, "classify", "embed", "count"})
"""What requests need of an engine; what its owner needs goes over the handle."""

_CANCEL = ""
_GOING = 0
"""The number of no call: what is told under it is told to the caller as a whole."""

_KEEPALIVE_MS = 10_000
"""How often a silent connection is tried: a replica whose machine is gone does not say so."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
)


class Address(NamedTuple):
    """Where a replica takes calls, and with which secret. It is told over Serve's handle only."""

    replica: str
    target: str
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
_all_asked = msgspec.msgpack.Decoder(list[_Asked]).decode
_all_told = msgspec.msgpack.Decoder(list[_Told]).decode


class _Sender:
    """Sends what has gathered while the message before went out."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[bytes] = []
        self._some = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sent = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run())

    def send(self, part: _Asked | _Told, *, paced: bool = False) -> None:
        """Send ``part`` at once; if it is ``paced``, not sooner than ``_PACE_S`` after the message before.

        Raises OverflowError, RecursionError, TypeError, ValueError: it has no form.
        """
        self._waiting.append(_encode(part))
        if not paced or self._loop.time() >= self._sent + _PACE_S:
            self._some.set()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._sent + _PACE_S, self._some.set)

    async def _run(self) -> None:
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                self._stop_timer()
                parts, self._waiting = self._waiting, []
                self._sent = self._loop.time()
                await self._write(_array(parts))
        except Exception as error:  # noqa: BLE001 - gRPC's ends differ by kind and moment; the reader hears why
            _log.debug("nothing more can be sent: %r", error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Send no more."""
        self._stop_timer()
        self._task.cancel()
        await asyncio.wait([self._task])


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
        self._callee = callee
        self._replica = replica
        self._secret = secrets.token_urlsafe(32)
        self._turns = asyncio.Semaphore(limit)
        self._callers: set[_Sender] = set()
        self._closing = False
        self._server = grpc.aio.server(options=_OPTIONS)
        calls = {_CALLS: grpc.stream_stream_rpc_method_handler(self._take)}
        handler = grpc.method_handlers_generic_handler(_SERVICE, calls)
        self._server.add_generic_rpc_handlers((handler,))

    async def open(self, host: str) -> Address:
        """Listen on a free port of ``host``."""
        bracketed = f"[{host}]" if ":" in host else host
        port = self._server.add_insecure_port(f"{bracketed}:0")
        await self._server.start()
        return Address(self._replica, f"{bracketed}:{port}", self._secret)

    async def close(self, grace: float) -> None:
        """Take no more calls; return once those under way have ended, or after ``grace`` seconds."""
        self._closing = True
        for caller in self._callers:
            caller.send(_Told(_GOING))
        await self._server.stop(grace)

    async def _take(self, _requests: Any, context: grpc.aio.ServicerContext) -> None:
        """Take calls of one gateway until it has no more."""
        given = dict(context.invocation_metadata() or ()).get("authorization")
        if not hmac.compare_digest(str(given).encode(), self._secret.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the secret is not this replica's")
        await context.write(_array([]))  # the caller waits for a sign that it is let in
        caller, running = _Sender(context.write), dict[int, asyncio.Task[None]]()
        self._callers.add(caller)
        if self._closing:
            caller.send(_Told(_GOING))
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for asked in _all_asked(message):
                    self._begin(asked, caller, running)
        finally:
            self._callers.discard(caller)
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)
            await caller.close()

    def _begin(self, asked: _Asked, caller: _Sender, running: dict[int, asyncio.Task[None]]) -> None:
        if asked.method == _CANCEL:
            if asked.call in running:
                running[asked.call].cancel()
            return
        if self._closing:
            gone = Fault(EngineLost.__name__, f"replica {self._replica} stops")
            caller.send(_Told(asked.call, fault=gone, ended=True))
            return
        task = asyncio.create_task(self._run(asked, caller))
        running[asked.call] = task
        task.add_done_callback(lambda _: running.pop(asked.call, None))

    async def _run(self, asked: _Asked, caller: _Sender) -> None:
        try:
            async with self._turns:
                await self._answer(asked, caller)
        except Exception as error:  # noqa: BLE001 - as with any server, what breaks one call ends that one
            _log.exception("the call of %s broke", asked.method)
            fault = Fault("EngineUnavailable", f"the call broke: {type(error).__name__}: {error}")
            caller.send(_Told(asked.call, fault=fault, ended=True))

    async def _answer(self, asked: _Asked, caller: _Sender) -> None:
        if asked.method not in _ALLOWED:
            unknown = Fault("EngineUnavailable", f"requests have no call {asked.method!r}")
            caller.send(_Told(asked.call, fault=unknown, ended=True))
        elif asked.method == _GENERATE:
            paced = False
            async with aclosing(self._callee.engine_stream(*asked.args)) as answer:
                async for item in answer:
                    if isinstance(item, Fault):
                        caller.send(_Told(asked.call, fault=item))
                    else:
                        caller.send(_Told(asked.call, item), paced=paced)
                    paced = True  # the first token goes out at once, and the end
            caller.send(_Told(asked.call, ended=True))
        else:
            result = await self._callee.engine_call(asked.method, *asked.args)
            fault = result if isinstance(result, Fault) else None
            caller.send(_Told(asked.call, value=None if fault else result, fault=fault, ended=True))


# -- a gateway's end ------------------------------------------------------------------------------

_Parts = asyncio.Queue[_Told]


class Channel:
    """One replica, at the other end of a connection; ``ended`` is called when it takes no more calls."""

    def __init__(self, address: Address, ended: Callable[[Channel], None]) -> None:
        self.replica = address.replica
        self._ended = ended
        self._lost = ""
        """Why it takes no more calls."""
        self._numbers = itertools.count(_GOING + 1)
        self._calls: dict[int, _Parts] = {}
        self._connection = grpc.aio.insecure_channel(address.target, options=_OPTIONS)
        self._stream = self._connection.stream_stream(f"/{_SERVICE}/{_CALLS}")(
            metadata=(("authorization", address.secret),)
        )
        self._sender = _Sender(self._stream.write)
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return once the replica has taken the connection. Raises EngineLost: it does not."""
        try:
            await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise EngineLost(f"replica {self.replica} takes no connection: {_says(error)}") from error
        self._listening = asyncio.create_task(self._listen())

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    async def close(self) -> None:
        """End the connection, and what is still under way on it."""
        self._end("the gateway has closed the connection")
        self._stream.cancel()
        if self._listening is None:
            await self._hang_up()
        else:
            await asyncio.wait([self._listening])  # which hangs up

    async def _hang_up(self) -> None:
        await self._sender.close()
        await self._connection.close()

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield what the replica generates; closing this aborts it there."""
        with self._call(_GENERATE, body) as parts:
            ended = False
            while not ended:
                told = await parts.get()
                chunks, ended = told.chunks, told.ended
                while told.fault is None and not ended and not parts.empty():  # what is ready together
                    told = parts.get_nowait()
                    chunks, ended = [*chunks, *told.chunks], told.ended
                if chunks:
                    yield chunks
                if told.fault is not None:
                    raise_fault(told.fault)

    async def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name."""
        with self._call(method, *args) as parts:
            told = await parts.get()
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

    async def _listen(self) -> None:
        reason = "it has ended the connection"
        try:
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                for told in _all_told(message):
                    self._hear(told)
        except grpc.aio.AioRpcError as error:
            reason = _says(error)
        except asyncio.CancelledError:  # of the stream, by `_hang_up_if_idle` or `close`: nobody cancels this
            reason = "the gateway has closed the connection"
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits for an answer must hear of it
            _log.exception("what replica %s sends cannot be read", self.replica)
            reason = f"what it sends cannot be read: {error}"
            self._stream.cancel()
        self._end(reason)
        fault = Fault(EngineLost.__name__, f"replica {self.replica}, which had the call, is gone: {reason}")
        for number in list(self._calls):
            self._calls.pop(number).put_nowait(_Told(number, fault=fault, ended=True))
        await self._hang_up()

    def _hear(self, told: _Told) -> None:
        if told.call == _GOING:
            self._end("it stops")
        elif told.ended:
            parts = self._calls.pop(told.call, None)
            if parts is not None:
                parts.put_nowait(told)
        elif told.call in self._calls:
            self._calls[told.call].put_nowait(told)
        self._hang_up_if_idle()

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
            self._stream.cancel()


def _says(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name.lower()}: {error.details()}"


def least_busy(channels: Collection[Channel]) -> Channel | None:
    """Return, by lot, one of those that have the fewest calls under way; None if there is no channel."""
    if not channels:
        return None
    fewest = min(channel.in_flight for channel in channels)
    return random.choice([channel for channel in channels if channel.in_flight == fewest])  # noqa: S311 - a lot
