"""Making chunks and reading them back: the one place that knows what is inside ``Chunk.members``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from runtime.core.metering.usage import Usage
from runtime.engines.port import Chunk, EngineClient, WarmResult
from runtime.errors import EngineUnavailable

_OURS = frozenset({"id", "object", "created", "model", "usage"})
"""Members that the gateway writes itself."""

_LINE_ENDS = tuple((end.encode(), f"\\u{ord(end):04x}".encode()) for end in ("\u2028", "\u2029", "\x85"))


def pack(answer: Mapping[str, Any], usage: Usage, elapsed: float) -> Chunk:
    """Return a chunk for an engine's answer object (a chat completion or a chunk of one)."""
    kept = {key: value for key, value in answer.items() if key not in _OURS and value is not None}
    choices = answer.get("choices") or ()
    finish = any(choice.get("finish_reason") for choice in choices)
    kept["choices"] = [_as_openai(choice) for choice in choices]
    return Chunk(one_line(orjson.dumps(kept))[1:-1], usage, elapsed, finish)


def one_line(json: bytes) -> bytes:
    """Return JSON without what ends a line by Unicode: some clients split event streams there, too.

    JSON escapes all others of them anyway. They stand inside strings only, where an escape says the same.
    """
    if json.isascii():
        return json
    for line_end, escape in _LINE_ENDS:
        json = json.replace(line_end, escape)
    return json


def _as_openai(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice with the members that OpenAI's always has, and no null where OpenAI has none."""
    shown = {"finish_reason": None, "logprobs": None, **_without_null(choice)}
    if shown["logprobs"] is not None:
        shown["logprobs"] = {"refusal": None, **shown["logprobs"]}
    if "delta" in shown:
        shown["delta"] = _without_null(shown["delta"])
    else:
        message = _without_null(shown["message"])
        shown["message"] = {"content": None, "refusal": None, "annotations": [], **message}
    return shown


def _without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member is not None}


def unpack(chunk: Chunk) -> dict[str, Any]:
    """Return the members of a chunk as an object."""
    members: dict[str, Any] = orjson.loads(b"{" + chunk.members + b"}")
    return members


def text_of(chunk: Chunk) -> str:
    """Return the first choice's text of an answer that was not streamed."""
    choices = unpack(chunk)["choices"]
    return str(choices[0]["message"].get("content") or "")


async def run_once(engine: EngineClient, operation: str, body: Mapping[str, Any]) -> WarmResult:
    """Make one call to its end and return what the next step of a chain needs of it."""
    if operation == "classify":
        classified = await engine.classify(body)
        result = {"choice": classified.choice, "scores": dict(classified.scores)}
        return WarmResult(result, classified.usage, classified.elapsed)
    last: Chunk | None = None
    async for chunks in engine.generate({**body, "stream": False}):
        last = chunks[-1]
    if last is None:
        raise EngineUnavailable("the engine ended an answer without giving any")
    return WarmResult({"text": text_of(last)}, last.usage, last.elapsed)
