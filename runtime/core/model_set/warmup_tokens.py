"""How many tokens a warm-up can take, computed before any call is made.

The runs are the warm-up's own, walked with made-up answers. Nothing is tokenized here, so prompts
are bounded by their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.core.metering.usage import Usage
from runtime.core.model_set.digest import Content
from runtime.core.model_set.engines import EngineSpec, FakeEngineSpec
from runtime.core.model_set.model_set import ModelSet
from runtime.core.model_set.warming import Run, combinations, rounds
from runtime.core.requests.sampling import UNASKED_CAP
from runtime.core.walk.call import Call, Operation, Result, made_up
from runtime.core.walk.chain import Step
from runtime.core.walk.walk import UnrenderedPrompt

_BYTES_PER_TOKEN = 2
"""Prose has four, JSON three; the rest is for numbers and rare words."""

_TEMPLATE_TOKENS = 64
"""What chat templates add to a call: a system prompt of their own, the marks around messages."""

_ENCODER_TOKENS = 4
"""What encoders add to a text, and half a word."""

_CONTEXT_LENGTH = 32_768
"""Where an answer without a limit is taken to end if the engine's context length is not declared."""

_RESULT_WORD = "a "
"""A made-up answer has as many bytes as its tokens are counted for."""

_LONGEST_RESULT = 2**20
"""Tokens of a made-up answer. A set may declare more than fits into memory, and ask for many at once."""


def warmup_bound(content: Content) -> int:
    """Return how many tokens a warm-up takes at most: prompts and answers, on every replica."""
    model_set = content.model_set
    runs = ((run, round_.times) for round_ in rounds(content) for run in round_.runs)
    called = sum(times * _run_bound(run, model_set) for run, times in runs)
    return called + sum(_examples(step, model_set) for c in model_set.chains.values() for step in c.steps)


def _examples(step: Step, model_set: ModelSet) -> int:
    """Return what an encoder takes for a route's examples: it reads them once."""
    engine = model_set.engines[step.kind.engine]
    return engine.replicas * sum(_prompt_bound(text, engine, _ENCODER_TOKENS) for text in step.kind.examples)


def _run_bound(run: Run, model_set: ModelSet) -> int:
    """Return what a run takes if its routes choose what makes the longest prompts."""
    return max(_walk_bound(run, chosen, model_set) for chosen in combinations(run.chain))


def _walk_bound(run: Run, chosen: Mapping[str, Result], model_set: ModelSet) -> int:
    walk, tokens = run.walk(), 0
    while (step := walk.step) is not None:
        engine = model_set.engines[step.kind.engine]
        try:
            calls = walk.ready()
        except UnrenderedPrompt:
            # The prompt wants more of an earlier answer than a made-up one has.
            longest = engine.context_length or _CONTEXT_LENGTH
            tokens += engine.replicas * 2 * longest
            walk.suppose(chosen.get(step.id) or step.kind.example(_answer_of(longest)))
            continue
        for call in calls:
            usage = _call_bound(run, call, engine)
            tokens += engine.replicas * usage.total
            walk.record(call, chosen.get(step.id) or made_up(call, _answer_of(usage.completion)))
    return tokens


def _answer_of(tokens: int) -> str:
    return _RESULT_WORD * min(tokens, _LONGEST_RESULT)


def _call_bound(run: Run, call: Call, engine: EngineSpec) -> Usage:
    body = run.body(call)
    if call.operation is Operation.CLASSIFY:
        return Usage(prompt=_prompt_bound(body["input"], engine, _ENCODER_TOKENS))
    prompt = _prompt_bound(str(body), engine, _TEMPLATE_TOKENS)
    cut = _integer(body.get("truncate_prompt_tokens")) or prompt
    return Usage(prompt=min(prompt, cut), completion=_answer_bound(body, engine))


def _prompt_bound(text: str, engine: EngineSpec, added: int) -> int:
    tokens = len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + added
    return min(tokens, engine.context_length or tokens)


def _answer_bound(body: Mapping[str, Any], engine: EngineSpec) -> int:
    longest = (
        engine.tokens if isinstance(engine, FakeEngineSpec) else engine.context_length or _CONTEXT_LENGTH
    )
    limit = _integer(body.get("max_tokens")) or _integer(body.get(UNASKED_CAP)) or longest
    return min(limit, longest) * (_integer(body.get("n")) or 1)


def _integer(value: Any) -> int | None:
    """Return a number that a body holds, or None for anything that is none: the engine will refuse it."""
    return value if isinstance(value, int) and value > 0 else None
