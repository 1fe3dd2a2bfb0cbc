"""Reading a chat completion request: what is long is read in a thread, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from runtime.core.requests.gate import Asked, read_chat
from runtime.core.requests.json_body import QUICK
from runtime.core.requests.keys import Caller
from runtime.errors import Overloaded
from runtime.traffic.chain import ChatRequest

MOST_WAITING = 64
"""How many long bodies wait to be read; with more under way, the next is refused: seconds would pass."""


class _LongBodies:
    """Reads long bodies in one thread: hostile ones take turns there, and no core for themselves."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reading")
        self._waiting = 0

    async def read(self, raw: bytes) -> Asked:
        """Return what ``raw`` asks for. Raises InvalidRequest, or Overloaded if too many wait."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} long requests wait to be read here already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, read_chat, raw)
        finally:
            self._waiting -= 1


_LONG_BODIES = _LongBodies()


async def read_chat_request(raw: bytes, request_id: str, caller: Caller, session: str = "") -> ChatRequest:
    """Return the request of ``caller`` in ``raw`` (a JSON body), a turn of ``session`` if that is one.

    Raises:
        InvalidRequest: it is no chat request, or says what no client may; names the member.
        Overloaded: too many that are as long wait to be read.

    """
    asked = read_chat(raw) if len(raw) <= QUICK else await _LONG_BODIES.read(raw)
    return ChatRequest(
        request_id,
        asked.model,
        asked.messages,
        asked.members,
        asked.stream,
        caller,
        session,
        asked.include_usage,
    )
