"""A replica's end of the channels: it takes calls of gateways that know its secret."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from runtime.engines.port import Body, Chunk
from runtime.errors import EngineLost
from runtime.serve.connection import Connection
from runtime.serve.fault import Fault
from runtime.serve.wire import (
    CANCEL,
    GENERATE,
    GOING,
    UNREADABLE,
    VERSION,
    Address,
    Call,
    Hello,
    Reply,
    Sender,
    decode_calls,
    decode_hello,
    encode,
)

_log = logging.getLogger(__name__)

_ALLOWED = frozenset({GENERATE, "classify", "embed", "count"})
"""What requests need of an engine; what its owner needs goes over the handle."""

_INTRODUCTION_S = 5.0
"""How long a caller may take to say who it is."""

_BREAK_OFF_S = 1.0
"""How long calls that are broken off may take to end."""


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

    def knows(self, hello: Hello) -> str:
        """Return why a caller is not let in; empty if it is."""
        if hello.version != VERSION:
            return f"replica {self.replica} speaks version {VERSION} of this protocol, not {hello.version}"
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
        self._sender = Sender(self.connection)
        self._patience: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def say_going(self) -> None:
        """Let it call no more."""
        if self._known:
            self._sender.send(Reply(GOING))
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
            refusal = self._server.knows(decode_hello(message))
        except UNREADABLE:
            refusal = "this is no introduction"
        self.connection.send(encode(refusal))
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
            every = decode_calls(message)
        except UNREADABLE:
            _log.exception("what a gateway asks cannot be read")
            self.connection.close("what it asks cannot be read")
            return
        for call in every:
            self._begin(call)

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

    def _begin(self, call: Call) -> None:
        if call.method == CANCEL:
            if call.number in self._running:
                self._running[call.number].cancel()
            return
        if self._server.closing:
            gone = Fault(EngineLost.__name__, f"replica {self._server.replica} stops")
            self._sender.send(Reply(call.number, fault=gone, ended=True))
            return
        if call.number in self._running:
            self.connection.close(f"its call {call.number} is under way already")
            return
        task = asyncio.create_task(self._run(call))
        self._running[call.number] = task
        task.add_done_callback(lambda _: self._forget(call.number))

    def _forget(self, number: int) -> None:
        del self._running[number]
        self._end_if_idle()

    async def _run(self, call: Call) -> None:
        try:
            async with self._server.turns:
                await answer(self._server.callee, call, self._sender)
        except Exception as error:  # noqa: BLE001 - as with any server, what breaks one call ends that one
            _log.exception("the call of %s broke", call.method)
            fault = Fault("EngineUnavailable", f"the call broke: {type(error).__name__}: {error}")
            self._sender.send(Reply(call.number, fault=fault, ended=True))


async def answer(callee: Callee, call: Call, sender: Sender) -> None:
    """Do what a call asks of a replica, and reply with what comes of it as it comes."""
    if call.method not in _ALLOWED:
        unknown = Fault("EngineUnavailable", f"requests have no call {call.method!r}")
        sender.send(Reply(call.number, fault=unknown, ended=True))
    elif call.method == GENERATE:
        paced = False
        async with aclosing(callee.engine_stream(*call.args)) as generated:
            async for item in generated:
                if isinstance(item, Fault):
                    sender.send(Reply(call.number, fault=item))
                else:
                    sender.send(Reply(call.number, item), paced=paced)
                paced = True  # the first token goes out at once, and the end
        sender.send(Reply(call.number, ended=True))
    else:
        result = await callee.engine_call(call.method, *call.args)
        fault = result if isinstance(result, Fault) else None
        sender.send(Reply(call.number, value=None if fault else result, fault=fault, ended=True))
