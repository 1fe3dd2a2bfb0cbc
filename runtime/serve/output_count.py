"""Counting what vLLM generates while it does, also for an answer that is only sent whole.

vLLM says nothing of a whole answer before its end, so of one that is broken off nothing would be known.
Here it is asked for every step instead, and what asked for the whole still sees the end only.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runtime.core.usage import Usage
from runtime.engines.tally import Count

Generate = Callable[..., AsyncGenerator[Any, None]]
"""The form of ``vllm.v1.engine.async_llm.AsyncLLM.generate``."""

_PREFIX = "chatcmpl-"
"""What vLLM puts before a chat request's id."""


class OutputCounts:
    """The counts of calls that run, by the request id that vLLM is given for each."""

    def __init__(self) -> None:
        self._running: dict[str, Count] = {}

    @contextmanager
    def of(self, count: Count) -> Iterator[str]:
        """Return the request id under which what is generated within the block is told to ``count``."""
        # Its hop's, so that vLLM's log can be found; a caller that asks twice under one must not hide a call.
        request = count.tag.hop if count.tag.hop not in self._running else uuid.uuid4().hex
        self._running[request] = count
        try:
            yield request
        finally:
            del self._running[request]

    def counted(self, generate: Generate) -> Generate:
        """Return ``generate`` with the tokens of whole answers told as they come.

        An answer of several choices is left as it is: vLLM brings its choices together at the end only.
        """

        async def generate_counted(
            prompt: Any, sampling_params: Any, request_id: str, **options: Any
        ) -> AsyncGenerator[Any, None]:
            count = self._running.get(request_id.removeprefix(_PREFIX))
            if count is None or not _is_whole(sampling_params):
                outputs = generate(prompt, sampling_params, request_id, **options)
            else:
                outputs = _ends(generate(prompt, _stepwise(sampling_params), request_id, **options), count)
            try:
                async for output in outputs:
                    yield output
            finally:
                await outputs.aclose()

        return generate_counted


def _is_whole(sampling_params: Any) -> bool:
    kind = sampling_params.output_kind
    return kind is type(kind).FINAL_ONLY and sampling_params.n == 1


def _stepwise(sampling_params: Any) -> Any:
    changed = sampling_params.clone()
    changed.output_kind = type(changed.output_kind).CUMULATIVE
    return changed


async def _ends(outputs: AsyncGenerator[Any, None], count: Count) -> AsyncGenerator[Any, None]:
    """Tell ``count`` of every output; yield those that are the end of an answer."""
    try:
        async for output in outputs:
            generated = sum(len(choice.token_ids) for choice in output.outputs)
            prompt = len(output.prompt_token_ids or ())
            count.usage = Usage(prompt, generated, output.num_cached_tokens or 0)
            if output.finished:
                yield output
    finally:
        await outputs.aclose()
