"""Streamed answers as a client asks for them and reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp

DONE = b"[DONE]"
"""The data of a stream's last event."""

_DATA = b"data: "


def chat_body(model: str, prompt: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    """Return a request for so many tokens exactly, without chance."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": stream,
    }
    return body | ({"stream_options": {"include_usage": True}} if stream else {})


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Yield the data of a stream's events, those that have arrived together in one list."""
    rest = b""
    async for piece in response.content.iter_any():
        *whole, rest = (rest + piece).split(b"\n\n")
        events = [event[len(_DATA) :] for event in whole if event.startswith(_DATA)]
        if events:
            yield events
