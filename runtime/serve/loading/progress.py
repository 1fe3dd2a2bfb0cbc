"""The stages of an engine that comes up, from lines of vLLM's log.

The lines are those of vLLM 0.29. One that a later vLLM words otherwise is not found here: the engine
then shows the phase before it for longer. Progress bars are not among them, for they bypass the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from runtime.core.swap.phase import EnginePhase, Stage


class Fetching(Enum):
    """Who brings the weights to the replica's node."""

    NOBODY = "nobody"  # they are there
    BEFORE_VLLM = "before vLLM"  # ray.serve.llm copies them from a bucket, then starts vLLM
    BY_VLLM = "by vLLM"  # vLLM asks the Hugging Face hub for them, after it says that it loads


_BEGUN = re.compile(r"Starting to load model |Loading model from scratch\.\.\.")

_LINES: tuple[tuple[re.Pattern[str], EnginePhase], ...] = tuple(
    (re.compile(pattern), phase)
    for pattern, phase in (
        (r"Initializing a V1 LLM engine", EnginePhase.STARTING),
        (r"Time spent downloading weights for ", EnginePhase.LOADING),
        (r"Filesystem type for checkpoints: ", EnginePhase.LOADING),
        (r"Prefetching checkpoint files: (?P<percent>\d+)%", EnginePhase.LOADING),
        (r"Loading weights took ", EnginePhase.LOADING),
        (r"Model loading took ", EnginePhase.LOADING),
        (r"Warming up model for the compilation", EnginePhase.COMPILING),
        (r"Using cache directory: .* for vLLM's torch\.compile", EnginePhase.COMPILING),
        (r"vLLM's torch\.compile cache is disabled", EnginePhase.COMPILING),
        (r"Dynamo bytecode transform time: ", EnginePhase.COMPILING),
        (r"Compiling a graph for compile range ", EnginePhase.COMPILING),
        (r"Directly load the compiled graph", EnginePhase.COMPILING),
        (r"Directly load AOT compilation ", EnginePhase.COMPILING),
        (r"torch\.compile took ", EnginePhase.COMPILING),
        (r"Available KV cache memory: ", EnginePhase.ALLOCATING),
        (r"GPU KV cache size: ", EnginePhase.ALLOCATING),
        (r"Compile and warming up model for size ", EnginePhase.WARMING),
        (r"JIT kernel warmup starting", EnginePhase.WARMING),
        (r"Torch profiler (?:en|dis)abled for CUDA graph capture", EnginePhase.WARMING),
        (r"Graph capturing finished in ", EnginePhase.WARMING),
        (r"init engine \(profile, create kv cache, warmup model\) took ", EnginePhase.WARMING),
    )
)


def stage_of(line: str, fetching: Fetching = Fetching.NOBODY) -> Stage | None:
    """Return the stage that begins, or goes on, with a line of vLLM's log, or None if it shows none."""
    if _BEGUN.search(line):
        return Stage(EnginePhase.FETCHING if fetching is Fetching.BY_VLLM else EnginePhase.LOADING)
    for pattern, phase in _LINES:
        found = pattern.search(line)
        if found:
            percent = found.groupdict().get("percent")
            return Stage(phase, int(percent) if percent else None)
    return None


def furthest(lines: Iterable[str], fetching: Fetching) -> Stage:
    """Return how far the processes of one replica have come, by all that they logged.

    The furthest, not the last: a worker that lags logs what the first one has long logged.
    """
    begun = EnginePhase.FETCHING if fetching is Fetching.BEFORE_VLLM else EnginePhase.STARTING
    stages = [Stage(begun), *(stage for line in lines if (stage := stage_of(line, fetching)))]
    return max(stages, key=lambda stage: stage.order)
