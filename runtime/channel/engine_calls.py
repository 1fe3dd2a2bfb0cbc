"""What requests may ask of an engine's replica over a channel, and how that is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from runtime.channel.fault import Fault
from runtime.channel.server import Answer
from runtime.channel.wire import GENERATE, CallFrame, ReplyFrame, Sender
from runtime.engines.port import Body, Chunk

_ALLOWED = frozenset({GENERATE, "classify", "embed", "count", "ping", "spent"})
"""What requests need of an engine; what its owner needs goes over the handle."""


class Callee(Protocol):
    """What a replica does for its callers, whichever way their calls come."""

    def engine_stream(self, body: Body) -> AsyncGenerator[list[Chunk] | Fault, None]:
        """Yield what the engine generates; a fault, if any, comes last."""
        ...

    async def engine_call(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name; return its result or a fault."""
        ...


def answering(callee: Callee) -> Answer:
    """Return what answers calls with what ``callee`` does."""

    async def answer(call: CallFrame, sender: Sender) -> None:
        if call.method not in _ALLOWED:
            unknown = Fault("EngineUnavailable", f"requests have no call {call.method!r}")
            sender.send(ReplyFrame(call.number, fault=unknown, ended=True))
        elif call.method == GENERATE:
            await _stream(callee, call, sender)
        else:
            result = await callee.engine_call(call.method, *call.args)
            fault = result if isinstance(result, Fault) else None
            sender.send(ReplyFrame(call.number, value=None if fault else result, fault=fault, ended=True))

    return answer


async def _stream(callee: Callee, call: CallFrame, sender: Sender) -> None:
    paced = False
    async with aclosing(callee.engine_stream(*call.args)) as generated:
        async for item in generated:
            if isinstance(item, Fault):
                sender.send(ReplyFrame(call.number, fault=item))
            else:
                sender.send(ReplyFrame(call.number, item), paced=paced)
            paced = True  # the first token goes out at once, and the end
    sender.send(ReplyFrame(call.number, ended=True))
