"""Reading a chat completion request: what is long is read in a thread, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from runtime.core.json_body import QUICK
from runtime.core.keys import Caller
from runtime.core.request_gate import Asked, read_chat
from runtime.traffic.chain import ChatRequest

_READER = ThreadPoolExecutor(1, "reading")
"""One thread, so that hostile bodies take turns there, and of one core no more than their share."""


async def read_chat_request(raw: bytes, request_id: str, caller: Caller, session: str = "") -> ChatRequest:
    """Return the request of ``caller`` in ``raw`` (a JSON body), a turn of ``session`` if that is one.

    Raises:
        InvalidRequest: it is no chat request, or says what no client may; names the member.

    """
    asked = await _read(raw)
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


async def _read(raw: bytes) -> Asked:
    if len(raw) <= QUICK:
        return read_chat(raw)
    return await asyncio.get_running_loop().run_in_executor(_READER, read_chat, raw)
