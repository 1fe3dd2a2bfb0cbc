"""Fixed times in place of a model: with the same script behind each peer, only the way through differs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

SCRIPT = "script"
"""Key of ``experimental_configs`` of an ``LLMConfig`` with a script's fields."""


@dataclass(frozen=True)
class Script:
    """When the tokens of an answer come, in seconds."""

    time_to_first_token: float
    inter_token: float

    async def events(self, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Yield a streamed answer to ``body``, one event per token, as a server's bytes."""
        tokens = int(body["max_tokens"])
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body["model"],
        }
        for position in range(tokens):
            await asyncio.sleep(self.inter_token if position else self.time_to_first_token)
            delta = {"role": "assistant", "content": f"word{position} "}
            finish = "length" if position + 1 == tokens else None
            yield _event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        yield _event(head | {"choices": [], "usage": usage(tokens)}) + b"data: [DONE]\n\n"


def usage(tokens: int) -> dict[str, int]:
    """Return OpenAI's usage of an answer of so many tokens."""
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}


def _event(answer: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(answer) + b"\n\n"
