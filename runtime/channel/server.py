"""A replica's end of the channels: takes calls of callers that know the secret, and has them answered."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable

from runtime.channel.connection import SILENT_S, Connection
from runtime.channel.fault import Fault
from runtime.channel.wire import (
    CANCEL,
    GOAWAY,
    UNREADABLE,
    VERSION,
    Address,
    CallFrame,
    Hello,
    ReplyFrame,
    Sender,
    decode_calls,
    decode_hello,
    encode,
)
from runtime.errors import EngineLost

_log = logging.getLogger(__name__)

_HELLO_S = 5.0
"""How long a caller may take to send its hello."""

_STRANGERS = 256
"""How many callers may be about to do so; of more, the oldest are closed."""

_BREAK_OFF_S = 1.0
"""How long calls that are broken off may take to end."""

_MOST_CALLS = 20_000
"""How many calls of one caller may be under way, or wait for their turn."""

Answer = Callable[[CallFrame, Sender], Awaitable[None]]
"""Carries a call out, and sends its replies as they come."""


class ChannelServer:
    """Takes calls from callers that know the secret, ``limit`` at once; others wait their turn.

    A caller that is silent for ``silent_s`` is gone, and its calls are broken off.
    """

    def __init__(self, answer: Answer, replica: str, limit: int, silent_s: float = SILENT_S) -> None:
        self.answer = answer
        self.replica = replica
        self.turns = asyncio.Semaphore(limit)
        self.silent_s = silent_s
        self.closing = False
        self._secret = secrets.token_urlsafe(32)
        self._callers: dict[_Caller, None] = {}
        """In the order in which they have come."""
        self._listener: asyncio.Server | None = None

    async def open(self, host: str, tls: ssl.SSLContext | None = None) -> Address:
        """Listen on a free port of ``host``. Raises OSError: there is none."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, 0), family=family)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Caller(self).connection,
            sock=listening,
            ssl=tls,
            ssl_handshake_timeout=_HELLO_S if tls else None,
        )
        return Address(self.replica, host, listening.getsockname()[1], self._secret)

    async def close(self, grace: float) -> None:
        """Take no more calls; return once those under way have ended. After ``grace`` s break them off."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        for caller in list(self._callers):
            caller.send_goaway()
        ended = {caller.ended for caller in self._callers if not caller.ended.done()}
        if ended:
            await asyncio.wait(ended, timeout=grace)
            for caller in list(self._callers):
                caller.hang_up()
            await asyncio.wait(ended, timeout=_BREAK_OFF_S)

    def refusal_of(self, hello: Hello) -> str:
        """Return why a caller is not let in; empty if it is."""
        if hello.version != VERSION:
            return f"replica {self.replica} speaks version {VERSION} of this protocol, not {hello.version}"
        same = hmac.compare_digest(hello.secret.encode(), self._secret.encode())
        return "" if same else "the secret is not this replica's"

    def add(self, caller: _Caller) -> None:
        """Keep a caller until it is gone."""
        self._callers[caller] = None
        caller.ended.add_done_callback(lambda _: self._callers.pop(caller))
        strangers = [other for other in self._callers if not other.authenticated]
        for stranger in strangers[:-_STRANGERS]:
            stranger.hang_up()


class _Caller:
    """A caller as a replica knows it. ``ended`` is done when it is gone and its calls have ended."""

    def __init__(self, server: ChannelServer) -> None:
        self._server = server
        self._running: dict[int, asyncio.Task[None]] = {}
        self.authenticated = self._gone = False
        self._loop = asyncio.get_running_loop()
        self.connection = Connection(self._on_hello, self._on_lost, self._on_made, server.silent_s)
        self._sender = Sender(self.connection)
        self._patience: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def send_goaway(self) -> None:
        """Tell it to make no more calls here."""
        if self.authenticated:
            self._sender.send(ReplyFrame(GOAWAY))
        else:
            self.hang_up()

    def hang_up(self) -> None:
        """Break off its calls."""
        self.connection.close("the replica stops")

    def _on_made(self) -> None:
        self._server.add(self)
        reason = "it did not send its hello in time"
        self._patience = self._loop.call_later(_HELLO_S, self.connection.close, reason)

    def _on_hello(self, message: bytes) -> None:
        try:
            refusal = self._server.refusal_of(decode_hello(message))
        except UNREADABLE:
            refusal = "this is no hello"
        self.connection.send(encode(refusal))
        if refusal:
            self.connection.finish(refusal)
            return
        self._wait_no_more()
        self.authenticated = True
        self.connection.on_message = self._on_calls
        self.connection.trust()
        if self._server.closing:
            self.send_goaway()

    def _on_calls(self, message: bytes) -> None:
        try:
            every = decode_calls(message)
        except UNREADABLE:
            _log.warning("calls of a caller cannot be read; its connection is closed")
            self.connection.close("its calls cannot be read")
            return
        for call in every:
            self._begin(call)

    def _on_lost(self, reason: str) -> None:
        _log.debug("a caller is gone: %s", reason)
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

    def _begin(self, call: CallFrame) -> None:
        if call.method == CANCEL:
            if call.number in self._running:
                self._running[call.number].cancel()
            return
        if call.number in self._running:
            self.connection.close(f"its call {call.number} is under way already")
            return
        refusal = self._refusal()
        if refusal is not None:
            self._sender.send(ReplyFrame(call.number, fault=refusal, ended=True))
            return
        task = asyncio.create_task(self._run(call))
        self._running[call.number] = task
        task.add_done_callback(lambda _: self._forget(call.number))

    def _refusal(self) -> Fault | None:
        if self._server.closing:
            return Fault(EngineLost.__name__, f"replica {self._server.replica} stops")
        if len(self._running) >= _MOST_CALLS:
            many = f"{_MOST_CALLS} calls of one caller are under way at replica {self._server.replica}"
            return Fault("EngineUnavailable", many)
        return None

    def _forget(self, number: int) -> None:
        del self._running[number]
        self._end_if_idle()

    async def _run(self, call: CallFrame) -> None:
        try:
            async with self._server.turns:
                await self._server.answer(call, self._sender)
        except Exception as error:  # noqa: BLE001 - as with any server, what breaks one call ends that one
            _log.exception("the call of %s failed", call.method)
            fault = Fault("EngineUnavailable", f"the call failed: {type(error).__name__}: {error}")
            self._sender.send(ReplyFrame(call.number, fault=fault, ended=True))
