"""The wire form of an answer: OpenAI's chat completion, whole or as server-sent events.

An engine's chunk arrives as ready JSON members; here it is wrapped, not parsed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from runtime.api.errors import body_of
from runtime.core.budgets.budget import Standing, Unit
from runtime.core.metering.latency import Latency
from runtime.engines.chunks import one_line
from runtime.engines.port import Chunk
from runtime.errors import InterlockError
from runtime.observe.server_timing import NAME, server_timing
from runtime.traffic.chain import ChainCall

DONE = b"data: [DONE]\n\n"


def answer_headers(call: ChainCall) -> dict[str, str]:
    """Return the headers that tell which release serves."""
    return {
        "x-interlock-release": str(call.release.number),
        "x-interlock-model-set": call.release.model_set,
        **limit_headers(call.hold.standing),
    }


def limit_headers(standing: Standing | None) -> dict[str, str]:
    """Return how the caller's limits per minute stand, as OpenAI tells it; none without such limits."""
    told: dict[str, str] = {}
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        tightest = standing.tightest(unit) if standing is not None else None
        if tightest is not None:
            limit, remaining, reset = tightest
            told[f"x-ratelimit-limit-{unit.value}"] = str(limit)
            told[f"x-ratelimit-remaining-{unit.value}"] = str(remaining)
            told[f"x-ratelimit-reset-{unit.value}"] = f"{reset:.3f}s"
    return told


def timing_headers(call: ChainCall, latency: Latency | None = None) -> dict[str, str]:
    """Return the header that tells where the time went; none if no hop has run."""
    if not call.hops:
        return {}
    return {NAME: server_timing(latency or call.latency(), call.hops)}


def _trailer(call: ChainCall, latency: Latency) -> dict[str, Any]:
    return {
        "release": call.release.number,
        "model_set": call.release.model_set,
        "hops": [hop.as_json() for hop in call.hops],
        "latency": latency.as_json(),
    }


def _streamed_trailer(call: ChainCall) -> dict[str, Any]:
    """Return the trailer of a stream, whose headers were sent before there was anything to time."""
    latency = call.latency()
    return _trailer(call, latency) | {"server_timing": server_timing(latency, call.hops)}


def _opening(call: ChainCall, kind: str) -> bytes:
    """Return the start of an answer object, up to where the engine's members go."""
    head = {
        "id": f"chatcmpl-{call.request.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": call.request.model,
    }
    return one_line(orjson.dumps(head))[:-1]


async def whole(call: ChainCall) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an answer that is not streamed."""
    members = b""
    async for chunks in call.chunks():
        members = next((chunk.members for chunk in reversed(chunks) if chunk.members), members)
    await call.settle()
    latency = call.latency()
    tail = orjson.dumps({"usage": call.usage.as_openai(), "interlock": _trailer(call, latency)})
    body = _opening(call, "chat.completion") + b"," + members + b"," + tail[1:]
    return body, answer_headers(call) | timing_headers(call, latency)


async def events(call: ChainCall) -> AsyncIterator[bytes]:
    """Yield the events of a streamed answer, those that are ready together in one piece.

    The ``interlock`` object goes into the last chunk: the usage chunk if the client asked for one,
    otherwise the one with the finish reason, which is held back until the stream has ended. If the
    stream breaks, the error's event has it.
    """
    opening = b"data: " + _opening(call, "chat.completion.chunk") + b","
    held: list[Chunk] = []
    try:
        async for chunks in call.chunks():
            ready, held = _hold_back(held, chunks)
            if ready:
                yield b"".join(opening + chunk.members + b"}\n\n" for chunk in ready)
    except InterlockError as error:
        await call.settle()
        told = body_of(error) | {"interlock": _streamed_trailer(call)}
        yield b"data: " + one_line(orjson.dumps(told)) + b"\n\n" + DONE
        return
    await call.settle()
    yield _last_events(call, opening, held) + DONE


def _hold_back(held: list[Chunk], arrived: list[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """Return what can go out now and what waits: chunks that may turn out to be the last."""
    chunks = [chunk for chunk in (*held, *arrived) if chunk.members]
    keep = len(chunks)
    while keep and chunks[keep - 1].finish:
        keep -= 1
    return chunks[:keep], chunks[keep:]


def _last_events(call: ChainCall, opening: bytes, held: list[Chunk]) -> bytes:
    tail: dict[str, Any] = {"interlock": _streamed_trailer(call)}
    if call.request.include_usage:
        tail = {"choices": [], "usage": call.usage.as_openai(), **tail}
        pieces = [opening + chunk.members + b"}\n\n" for chunk in held]
        return b"".join(pieces) + opening + one_line(orjson.dumps(tail))[1:] + b"\n\n"
    pieces = [opening + chunk.members + b"}\n\n" for chunk in held[:-1]]
    last = held[-1].members if held else b'"choices":[]'
    return b"".join(pieces) + opening + last + b"," + one_line(orjson.dumps(tail))[1:] + b"\n\n"
