"""Messages over TCP: each is four bytes that tell its length, and then itself.

Of asyncio's own, with nothing in between: a gateway hears thousands of messages a second on the loop that
also writes to its clients, and a library with threads of its own hands Python's lock to and fro for each.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

_HEAD = 4
"""Bytes that tell a message's length, the greatest first."""

_STRANGER = 1024
"""Bytes of the greatest message of an end that has not shown who it is."""

_KEEPALIVE_S = 10
_UNANSWERED = 2
"""A silent connection is tried every so many seconds, and ends when so many tries got no answer: a machine
that is gone does not say so. A system answers for its processes: of one that stands still, Serve's health
check tells. One that takes nothing of what is sent to it for as long is given up, too."""

_OPTIONS = {
    "TCP_KEEPIDLE": _KEEPALIVE_S,
    "TCP_KEEPINTVL": _KEEPALIVE_S,
    "TCP_KEEPCNT": _UNANSWERED,
    "TCP_USER_TIMEOUT": _KEEPALIVE_S * _UNANSWERED * 1000,
}


class Connection(asyncio.Protocol):
    """One end of a connection. It tells its owner what happens.

    ``made`` is called when it is there, ``heard`` with each message, and ``lost`` once, with the reason, when
    it has ended.
    """

    def __init__(
        self,
        heard: Callable[[bytes], None],
        lost: Callable[[str], None],
        made: Callable[[], None] | None = None,
    ) -> None:
        self.heard = heard
        self._lost = lost
        self._made = made
        self.full = False
        """The other end takes nothing for now; ``resumed`` is called when it does so again."""
        self.resumed: Callable[[], None] | None = None
        self._over = asyncio.Event()
        self._over.set()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._greatest: int | None = _STRANGER
        self._reason = ""

    def trust(self) -> None:
        """Take messages of any length from now on: the other end has shown who it is."""
        self._greatest = None

    def send(self, message: bytes) -> None:
        """Send a message, unless the connection has ended: then its owner has heard so, or is about to."""
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
        """Expect no connection any more: uvloop tells of none that is cancelled while it is made."""
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
        if self._made is not None:
            self._made()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the owner why it has ended."""
        self._lost(self._reason or (f"{error}" if error is not None else "it has ended the connection"))
        self._over.set()

    def pause_writing(self) -> None:
        """Note that more would only fill the memory."""
        self.full = True

    def resume_writing(self) -> None:
        """Tell who waits to go on."""
        self.full = False
        if self.resumed is not None:
            self.resumed()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived: a part of a message, one, or several."""
        self._unread += data
        for message in self._whole():
            if self._transport is None or self._transport.is_closing():
                return
            self.heard(message)

    def _whole(self) -> list[bytes]:
        """Return the messages that have arrived as a whole."""
        found: list[bytes] = []
        begin = 0
        with memoryview(self._unread) as unread:
            while len(unread) >= begin + _HEAD:
                length = int.from_bytes(unread[begin : begin + _HEAD], "big")
                if self._greatest is not None and length > self._greatest:
                    self.close(f"a message of {length} bytes before the two ends know each other")
                    break
                end = begin + _HEAD + length
                if len(unread) < end:
                    break
                found.append(bytes(unread[begin + _HEAD : end]))
                begin = end
        del self._unread[:begin]
        return found


def _keep_alive(connected: socket.socket) -> None:
    """Let the system find out whether the other end is still there while nothing is sent."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):  # not every system has all of them
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
