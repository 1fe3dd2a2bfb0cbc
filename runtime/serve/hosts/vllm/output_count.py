"""Counting what vLLM generates by vLLM's own count, also of answers that are broken off.

vLLM keeps one state for each sequence that it generates: each choice of an answer is one, and so is each beam
of each step of a beam search. In a state it adds up the tokens that it adds to its own metrics, at the same
place. So a call's count is the sum over its states, whatever was sent of them.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from runtime.core.metering.usage import NOTHING, Usage
from runtime.engines.tally import Count

_PREFIX = "chatcmpl-"
"""What vLLM puts before a chat request's id."""

_BEAM = re.compile(r"-[0-9a-zA-Z]+-beam-\d+$")
"""What vLLM puts behind it for one beam of one step."""


class Processor(Protocol):
    """What is needed of ``vllm.v1.engine.output_processor.OutputProcessor``."""

    request_states: dict[str, Any]
    add_request: Callable[..., None]

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:  # noqa: FBT001 - vLLM's form
        """Forget sequences: what still comes of them is not counted. Return which the core has to end."""
        ...


class CallOutputs:
    """What vLLM generates for one call. ``request`` is the id to ask it under."""

    def __init__(self, request: str) -> None:
        self.request = request
        self.reasoning = 0
        """How many of the tokens are thoughts, as vLLM's answer has it."""
        self.submitted = False
        """Whether vLLM has taken the request: errors before that are about the request alone."""
        self._running: dict[str, Any] = {}
        self._ended = NOTHING

    def usage(self) -> Usage:
        """Return what has been read and generated so far. The prompt counts once, whoever reads it."""
        generated = self._ended.completion + sum(_generated(state) for state in self._running.values())
        read = next((_read(state) for state in self._running.values() if not state.is_prefilling), NOTHING)
        read = self._ended if self._ended.prompt else read
        return Usage(read.prompt, generated, read.cached, self.reasoning)

    def add(self, state: Any, known: dict[str, Any]) -> None:
        """Take a sequence of this call along, and add up those that vLLM has ended (not in ``known``)."""
        self.submitted = True
        self._end(name for name in self._running if name not in known)
        self._running[state.request_id] = state

    def end(self) -> list[str]:
        """Add up all sequences; return which vLLM may still be generating."""
        names = list(self._running)
        self._end(names)
        return names

    def _end(self, names: Iterable[str]) -> None:
        for name in list(names):
            state = self._running.pop(name)
            if not self._ended.prompt and not state.is_prefilling:
                self._ended = _read(state)._replace(completion=self._ended.completion)
            self._ended = self._ended.plus(Usage(completion=_generated(state)))


class OutputCounts:
    """The counts of calls that run, by the request id that vLLM is given for each."""

    def __init__(self, processor: Processor, end: Callable[[list[str]], Any]) -> None:
        """``end`` is ``EngineCoreClient.abort_requests_async``: has the core end sequences by name."""
        self._processor = processor
        self._end = end
        self._calls: dict[str, CallOutputs] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._add = processor.add_request
        processor.add_request = self._noting

    def of_request(self, request_id: str) -> CallOutputs | None:
        """Return the call that a request of vLLM's belongs to, if it is one of ours."""
        return self._calls.get(_BEAM.sub("", request_id).removeprefix(_PREFIX))

    def _noting(self, request: Any, *args: Any, **options: Any) -> None:
        self._add(request, *args, **options)
        state = self._processor.request_states[request.request_id]
        call = self.of_request(state.external_req_id)
        if call is not None:
            call.add(state, self._processor.request_states)

    @asynccontextmanager
    async def of(self, count: Count) -> AsyncIterator[CallOutputs]:
        """Count into ``count`` what is generated within the block; when it ends, so does the generation."""
        # Its hop's id, so that vLLM's log can be found; a repeated id must not hide a call.
        name = count.tag.hop if count.tag.hop not in self._calls else uuid.uuid4().hex
        call = self._calls[name] = CallOutputs(name)
        count.follow(call.usage)
        try:
            yield call
        finally:
            del self._calls[name]
            names = self._forget(call)
            count.usage = call.usage()
            if names:
                await self._abort_in_core(names)

    def _forget(self, call: CallOutputs) -> list[str]:
        # vLLM would do it, too, but later: when the garbage collector has found its generators.
        names = [name for name in call.end() if name in self._processor.request_states]
        return self._processor.abort_requests(names, internal=True) if names else []

    async def _abort_in_core(self, names: list[str]) -> None:
        ending = asyncio.create_task(self._end(names))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)


def _read(state: Any) -> Usage:
    return Usage(state.prompt_len, cached=state.num_cached_tokens or 0)


def _generated(state: Any) -> int:
    if state.stats is not None:
        return int(state.stats.num_generation_tokens)
    return int(state.detokenizer.num_output_tokens())  # `disable_log_stats`
