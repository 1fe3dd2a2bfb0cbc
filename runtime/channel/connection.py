"""Messages over TCP: four bytes of length, then the message; an empty one is a heartbeat.

On asyncio alone, with nothing in between: a gateway receives thousands of messages a second on the loop that
also writes to its clients, and a library with threads of its own hands the GIL back and forth for each.

Nothing waits for an end that is gone: a network that has broken ends the connection within ``UNREACHED_S``,
and so does a process that says nothing for ``silent_s``, or takes nothing of what is sent to it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

_HEAD = 4
"""Bytes of a message's length, big-endian."""

_STRANGER = 1024
"""The largest message, in bytes, from an end that is not authenticated."""

GREATEST = 256 * 1024 * 1024
"""The largest message, in bytes, from one that is."""

UNREACHED_S = 8
"""How long a network may lose everything. The kernel notices: a machine that is gone closes nothing. TCP
retries at doubling intervals, so a break of less than this is over in as long again."""

_OPTIONS = {
    "TCP_KEEPIDLE": UNREACHED_S // 2,
    "TCP_KEEPINTVL": UNREACHED_S // 4,
    "TCP_KEEPCNT": 2,
    "TCP_USER_TIMEOUT": UNREACHED_S * 1000,
}

SILENT_S = 20.0
"""How long the process at the other end may be silent. A kernel acknowledges for its processes, and so may a
proxy between the two; a heartbeat is the process's own. It is long, for a process may be busy."""

_BEAT_S = 2.0
"""How often each end sends a heartbeat, and checks for the other's."""

_STUCK_S = 10.0
"""How long the other end may read nothing of what waits for it."""

_BEAT = bytes(_HEAD)


class Connection(asyncio.Protocol):
    """One end of a connection. It calls its owner back.

    ``on_made`` is called when it is there, ``on_message`` with each message, and ``on_lost`` once, with the
    reason, when it has ended.
    """

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        on_made: Callable[[], None] | None = None,
        silent_s: float = SILENT_S,
    ) -> None:
        self.on_message = on_message
        self._on_lost = on_lost
        self._on_made = on_made
        self._silent_s = silent_s
        self.full = False
        """The other end reads nothing for now; ``on_resumed`` is called when it does again."""
        self.on_resumed: Callable[[], None] | None = None
        self._over = asyncio.Event()
        self._over.set()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._greatest = _STRANGER
        self._reason = ""
        self._pulse: _Pulse | None = None

    def trust(self) -> None:
        """Take long messages from now on, and expect heartbeats: the other end is authenticated."""
        self._greatest = GREATEST
        if self._transport is not None:
            self._pulse = _Pulse(self._transport, self.close, self._silent_s)

    def send(self, message: bytes) -> None:
        """Send a message, unless the connection has ended: ``on_lost`` has been called then, or soon is."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(message).to_bytes(_HEAD, "big") + message)

    def close(self, reason: str) -> None:
        """End the connection; what has not gone out is lost."""
        if self._transport is not None:
            self._reason = self._reason or reason
            self._transport.abort()

    def finish(self, reason: str) -> None:
        """End the connection once what was sent has gone out."""
        if self._transport is not None:
            self._reason = self._reason or reason
            self._transport.close()

    def give_up(self) -> None:
        """Expect no connection any more: uvloop reports none that is cancelled while it is made."""
        self._over.set()

    async def wait_closed(self) -> None:
        """Return once there is no connection."""
        await self._over.wait()

    # -- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._over.clear()
        _keep_alive(self._transport.get_extra_info("socket"))
        if self._on_made is not None:
            self._on_made()

    def connection_lost(self, error: Exception | None) -> None:
        """Report to the owner why it has ended."""
        if self._pulse is not None:
            self._pulse.stop()
        self._on_lost(self._reason or (f"{error}" if error is not None else "it has ended the connection"))
        self._over.set()

    def pause_writing(self) -> None:
        """Note that more would only fill the memory."""
        self.full = True

    def resume_writing(self) -> None:
        """Let the owner go on sending."""
        self.full = False
        if self.on_resumed is not None:
            self.on_resumed()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived: a part of a message, one, or several."""
        if self._pulse is not None:
            self._pulse.received()
        self._unread += data
        for message in self._complete():
            if self._transport is None or self._transport.is_closing():
                return
            self.on_message(message)

    def _complete(self) -> list[bytes]:
        """Return the messages that have arrived completely."""
        found: list[bytes] = []
        begin = 0
        with memoryview(self._unread) as unread:
            while len(unread) >= begin + _HEAD:
                length = int.from_bytes(unread[begin : begin + _HEAD], "big")
                if length > self._greatest:
                    self.close(f"a message of {length} bytes, and {self._greatest} are the most")
                    break
                end = begin + _HEAD + length
                if len(unread) < end:
                    break
                if length:
                    found.append(bytes(unread[begin + _HEAD : end]))
                begin = end
        del self._unread[:begin]
        return found


class _Pulse:
    """The heartbeats of a connection: sends its own, and closes it when none come from the other end."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[str], None], silent_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._close = close
        self._silent_s = silent_s
        self._beaten_at = self._received_at = self._taken_at = self._loop.time()
        self._waiting = 0
        self._next = self._loop.call_later(_BEAT_S, self._beat)

    def stop(self) -> None:
        """End: there is no connection any more."""
        self._next.cancel()

    def received(self) -> None:
        """Note that something has come from the other end."""
        self._received_at = self._loop.time()

    def _beat(self) -> None:
        now = self._loop.time()
        if now - self._beaten_at > 2 * _BEAT_S:
            # This process itself stood still, and what has come meanwhile is yet to be read.
            self._received_at = self._taken_at = now
        self._beaten_at = now
        waiting = self._transport.get_write_buffer_size()
        if not waiting or waiting < self._waiting:
            self._taken_at = now
        if now - self._received_at > self._silent_s:
            self._close(f"it has said nothing for {self._silent_s:g} s")
            return
        if now - self._taken_at > _STUCK_S:
            self._close(f"it has taken nothing of what is sent to it for {_STUCK_S:g} s")
            return
        if not waiting:
            self._transport.write(_BEAT)
        self._waiting = waiting
        self._next = self._loop.call_later(_BEAT_S, self._beat)


def _keep_alive(connected: socket.socket) -> None:
    """Let the system find out whether the other end is still there while nothing is sent."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):  # not every system has all of them
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
