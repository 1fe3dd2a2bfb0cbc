"""gRPC from a gateway straight to an engine's replicas, past Serve's handle.

A handle call passes a router, a scheduler, pickle and two event loops on either side, and each token of a
stream does so again. Here the same bodies and chunks go as MessagePack over one connection. Serve places,
scales, checks and replaces replicas as before: it is asked through the handle where they are, and whom it
has to count or to choose for (autoscaling, a request router of the deployment's own) stays with the handle.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import secrets
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc
import msgspec

from runtime.engines.port import Body, Chunk
from runtime.errors import EngineLost, EngineUnavailable, InvalidRequest
from runtime.serve.fault import Fault, raise_fault

_SERVICE = "interlock.Engine"
_STREAM, _CALL = "Stream", "Call"

_KEEPALIVE_MS = 10_000
"""How often an idle or silent connection is tried: a replica that stands still answers no more."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
)

_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAUTHENTICATED})
"""What a call ends with whose replica is gone, is going, or is another one by now at the same address."""


class Address(NamedTuple):
    """Where a replica takes calls, and with which secret. It is told over Serve's handle only."""

    replica: str
    target: str
    secret: str


class _Frame(NamedTuple):
    """A part of a stream: chunks, or the fault that ended it."""

    chunks: list[Chunk]
    fault: Fault | None = None


class _Reply(NamedTuple):
    """What a call by name came to."""

    value: Any
    fault: Fault | None = None


_encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(_Frame).decode
_reply = msgspec.msgpack.Decoder(_Reply).decode
_request = msgspec.msgpack.Decoder(list[Any]).decode


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
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    _SERVICE,
                    {
                        _STREAM: grpc.unary_stream_rpc_method_handler(self._stream),
                        _CALL: grpc.unary_unary_rpc_method_handler(self._call),
                    },
                ),
            )
        )

    async def open(self, host: str) -> Address:
        """Listen on a free port of ``host``."""
        bracketed = f"[{host}]" if ":" in host else host
        port = self._server.add_insecure_port(f"{bracketed}:0")
        await self._server.start()
        return Address(self._replica, f"{bracketed}:{port}", self._secret)

    async def close(self, grace: float) -> None:
        """Take no more calls; return once those under way have ended, or after ``grace`` seconds."""
        await self._server.stop(grace)

    async def _stream(self, request: bytes, context: grpc.aio.ServicerContext) -> None:
        await self._check(context)
        (body,) = _request(request)
        async with self._turns, aclosing(self._callee.engine_stream(body)) as answer:
            async for item in answer:
                frame = _Frame([], item) if isinstance(item, Fault) else _Frame(item)
                await context.write(_encode(frame))

    async def _call(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await self._check(context)
        async with self._turns:
            result = await self._callee.engine_call(*_request(request))
        reply = _Reply(None, result) if isinstance(result, Fault) else _Reply(result)
        return _encode(reply)

    async def _check(self, context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if not hmac.compare_digest(str(metadata.get("authorization")), self._secret):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the secret is not this replica's")


# -- a gateway's end ------------------------------------------------------------------------------


class Channel:
    """One replica, at the other end of a connection."""

    def __init__(self, address: Address) -> None:
        self.replica = address.replica
        self.in_flight = 0
        self._retired = False
        self._channel = grpc.aio.insecure_channel(address.target, options=_OPTIONS)
        self._stream = self._channel.unary_stream(f"/{_SERVICE}/{_STREAM}")
        self._call = self._channel.unary_unary(f"/{_SERVICE}/{_CALL}")
        self._metadata = (("authorization", address.secret),)

    async def ready(self) -> None:
        """Return once the connection stands."""
        await self._channel.channel_ready()

    async def retire(self) -> None:
        """Close the connection once the last call on it has ended."""
        self._retired = True
        if not self.in_flight:
            await self._channel.close()

    async def close(self) -> None:
        """Close the connection, and break off what is still under way on it."""
        await self._channel.close()

    async def _end(self) -> None:
        self.in_flight -= 1
        if self._retired and not self.in_flight:
            await self._channel.close()

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield what the replica generates; closing this aborts it there."""
        call = self._stream(_encoded(body), metadata=self._metadata)
        self.in_flight += 1
        try:
            while (read := await call.read()) is not grpc.aio.EOF:
                frame = _frame(read)
                if frame.fault is not None:
                    raise_fault(frame.fault)
                yield frame.chunks
        except grpc.aio.AioRpcError as error:
            _raise_broken(error)
        finally:
            call.cancel()
            await self._end()

    async def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name."""
        call = self._call(_encoded(method, *args), metadata=self._metadata)
        self.in_flight += 1
        try:
            reply = _reply(await call)
        except grpc.aio.AioRpcError as error:
            _raise_broken(error)
        finally:
            call.cancel()
            await self._end()
        if reply.fault is not None:
            raise_fault(reply.fault)
        return reply.value


def _encoded(*args: Any) -> bytes:
    try:
        return _encode(args)
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the body holds what no engine can be told: {error}") from error


def _raise_broken(error: grpc.aio.AioRpcError) -> NoReturn:
    says = f"{error.code().name.lower()}: {error.details()}"
    if error.code() in _LOST:
        raise EngineLost(f"the replica that had taken the call is gone: {says}") from error
    raise EngineUnavailable(f"the call did not end: {says}") from error


def least_busy(channels: Collection[Channel]) -> Channel | None:
    """Return, by lot, one of those that have the fewest calls under way; None if there is no channel."""
    if not channels:
        return None
    fewest = min(channel.in_flight for channel in channels)
    return random.choice([channel for channel in channels if channel.in_flight == fewest])  # noqa: S311 - a lot
