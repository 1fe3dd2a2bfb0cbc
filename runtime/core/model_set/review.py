"""Mistakes in a model set whose form is right: found when it is read, before anything is loaded.

A set from the journal is not reviewed again: it was taken by the rules of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from runtime.core.declaration.document import Document, Key, Problem
from runtime.core.declaration.nearest import nearest
from runtime.core.declaration.units import duration_text
from runtime.core.model_set.deployment_options import faults_of_deployment
from runtime.core.model_set.engines import EngineSpec, FakeEngineSpec, VllmEngineSpec
from runtime.core.model_set.model_set import ModelSet, parse_document
from runtime.core.model_set.warming import combinations
from runtime.core.requests.sampling import faults_of
from runtime.core.walk import templates
from runtime.core.walk.chain import Chain, Step
from runtime.core.walk.walk import UnrenderedPrompt, Walk

_DAY = 86_400.0

_LONGEST: Mapping[str, float] = {
    "deadline": _DAY,
    "load_timeout": _DAY,
    "timeout": _DAY,
    "rollback_window": 30 * _DAY,
}
"""Seconds."""

_MAX_SHARDS = 1024
_MAX_CONTEXT = 2**24
_MAX_RENDERED = 32
"""How many renderings a set's prompts are tried with: the slowest that there is takes a tenth of a second."""

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def reviewed(document: Document, read: Callable[[str], str]) -> ModelSet:
    """Return the model set that a document declares, if nothing is wrong with it.

    Raises:
        ModelSetError: with all that was found, the file, line and key of each.

    """
    model_set = parse_document(document, read)
    problems = [*document.problems, *review(model_set)]
    if problems:
        raise document.refusal(problems)
    return model_set


def review(model_set: ModelSet) -> Iterator[Problem]:
    """Yield what is wrong with a set whose form is right."""
    yield from _times((), model_set, "rollback_window", least=0.0)
    yield from _times(("warmup",), model_set.warmup, "timeout")
    used = {name for chain in model_set.chains.values() for name in chain.engines}
    for name, engine in model_set.engines.items():
        if name not in used:
            yield Problem(("engines", name), "no chain uses it; take it out, or name it in a step")
        yield from _engine(("engines", name), engine)
    tries = iter(range(_MAX_RENDERED))
    for name, chain in model_set.chains.items():
        yield from _chain(("chains", name), chain, tries)


def _times(key: Key, holder: Any, name: str, least: float | None = None) -> Iterator[Problem]:
    """Yield that a span of time is none, or is longer than anybody waits."""
    seconds, most = getattr(holder, name), _LONGEST[name]
    if least is None and seconds <= 0.0:
        yield Problem((*key, name), "is over at once; write more than 0s")
    elif seconds > most:
        yield Problem((*key, name), f"is longer than {duration_text(most)}, the most that there is")


# -- engines --------------------------------------------------------------------------------------


def _engine(key: Key, engine: EngineSpec) -> Iterator[Problem]:
    yield from _times(key, engine, "load_timeout")
    if isinstance(engine, VllmEngineSpec):
        below = (*key, "llm_config")
        yield from _vllm_arguments((*below, "engine_kwargs"), engine.llm_config.engine_kwargs)
        yield from faults_of_deployment((*below, "deployment_config"), engine.llm_config.deployment_config)
        yield from _kv_space((*below, "runtime_env", "env_vars"), engine)
    else:
        yield from faults_of_deployment((*key, "deployment_config"), engine.deployment_config)
    if isinstance(engine, FakeEngineSpec):
        yield from _at_most(key, engine.shards, "shards", _MAX_SHARDS)
        for name in ("tokens", "context_length"):
            yield from _at_most(key, getattr(engine, name), name, _MAX_CONTEXT)


def _at_most(key: Key, number: int, name: str, most: int) -> Iterator[Problem]:
    if number > most:
        yield Problem((*key, name), f"is more than {most}")


_INTEGERS = {
    "tensor_parallel_size": _MAX_SHARDS,
    "pipeline_parallel_size": _MAX_SHARDS,
    "max_model_len": _MAX_CONTEXT,
    "max_num_seqs": 2**20,
    "kv_cache_memory_bytes": 2**50,
}
"""What the plan reckons with, and the most that it may be."""


def _vllm_arguments(key: Key, kwargs: Mapping[str, Any]) -> Iterator[Problem]:
    for name, most in _INTEGERS.items():
        value = kwargs.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            yield Problem((*key, name), f"is a whole number from 1 to {most}")
    share = kwargs.get("gpu_memory_utilization")
    if share is not None and (
        not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1
    ):
        yield Problem((*key, "gpu_memory_utilization"), "is a number over 0, at most 1")


def _kv_space(key: Key, engine: VllmEngineSpec) -> Iterator[Problem]:
    variables = (engine.llm_config.runtime_env or {}).get("env_vars")
    if variables is None:
        return
    if not isinstance(variables, Mapping):
        yield Problem(key, "is a mapping of variables to text")
        return
    for name, value in variables.items():
        if not isinstance(value, str):
            yield Problem((*key, name), "an environment variable is text", text=True)
    space = variables.get("VLLM_CPU_KVCACHE_SPACE", "1")
    if isinstance(space, str) and not (space.isdecimal() and len(space) < 7):  # noqa: PLR2004 - GiB
        yield Problem((*key, "VLLM_CPU_KVCACHE_SPACE"), "is a whole number of GiB")


# -- chains ---------------------------------------------------------------------------------------


def _chain(key: Key, chain: Chain, tries: Iterator[int]) -> Iterator[Problem]:
    yield from _times(key, chain, "deadline")
    for position, sample in enumerate(chain.samples):
        below = (*key, "samples", position)
        yield from _sampling((*below, "params"), sample.params)
        for place, message in enumerate(sample.messages):
            yield from _message((*below, "messages", place), message)
    prompts = list(_prompts(key, chain))
    yield from prompts
    if not prompts:
        yield from _rendered(key, chain, tries)


def _sampling(key: Key, members: Mapping[str, Any]) -> Iterator[Problem]:
    for fault in faults_of(members):
        yield Problem((*key, *fault.key), fault.reason, fault.nearest)


def _message(key: Key, message: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what an engine would refuse a sample's message for, after it has been loaded."""
    role = message.get("role")
    if role is None:
        yield Problem((*key, "role"), f"is missing; it is one of: {', '.join(_ROLES)}")
    elif role not in _ROLES:
        yield Problem((*key, "role"), f"is one of: {', '.join(_ROLES)}", nearest(str(role), _ROLES))
    content = message.get("content")
    if content is None:
        if role != "assistant" or not (message.get("tool_calls") or message.get("function_call")):
            yield Problem((*key, "content"), "is missing: the message's text, or a list of its parts")
    elif isinstance(content, list):
        for position, part in enumerate(content):
            if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
                yield Problem(
                    (*key, "content", position), "a part is a mapping with a type: {type: text, text: ...}"
                )
            elif part["type"] == "text" and not isinstance(part.get("text"), str):
                yield Problem((*key, "content", position, "text"), "is text", text=True)
    elif not isinstance(content, str):
        yield Problem((*key, "content"), "is text, or a list of parts", text=True)


def _prompts(key: Key, chain: Chain) -> Iterator[Problem]:
    """Yield what is wrong with the prompts and sampling of the steps."""
    given: dict[str, frozenset[str]] = {}
    for position, step in enumerate(chain.steps):
        below = (*key, "steps", position)
        kind = step.kind
        yield from _sampling((*below, kind.name, "sampling"), kind.sampling)
        misread = templates.misread(kind.prompt, given) if kind.prompt else None
        if misread is not None:
            fault, suggestion = misread
            reason = f"bad template: line {fault.line}: {fault.reason}"
            yield Problem((*below, kind.name, "prompt"), reason, suggestion)
        given[step.id] = kind.gives


def _rendered(key: Key, chain: Chain, tries: Iterator[int]) -> Iterator[Problem]:
    """Yield that a prompt cannot be made of a sample, whatever its routes choose.

    A prompt that computes on what an earlier step has generated is left to the warm-up: only there is such
    an answer.
    """
    failed: set[int] = set()
    for (number, sample), chosen in product(enumerate(chain.samples), combinations(chain)):
        for position, step in enumerate(chain.steps):
            written = {earlier.id for earlier in chain.steps[:position] if not earlier.kind.outcomes}
            if position in failed or not _made_of_routes(step, written):
                continue
            if next(tries, None) is None:
                return
            given = {**{earlier.id: earlier.kind.example() for earlier in chain.steps[:position]}, **chosen}
            given = {name: result for name, result in given.items() if name != step.id}
            try:
                Walk(chain, sample.messages, sample.params, given).ready()
            except UnrenderedPrompt as error:
                failed.add(position)
                choices = ", ".join(f"{name} is {result[0]}" for name, result in chosen.items())
                failing = f"samples[{number}]" + (f" where {choices}" if choices else "")
                yield Problem(
                    (*key, "steps", position, step.kind.name, "prompt"), f"fails on {failing}: {error}"
                )


def _made_of_routes(step: Step, written: set[str]) -> bool:
    """Say whether a step has a prompt that reads nothing that a step has generated."""
    if step.kind.prompt is None:
        return False
    read = templates.reads_of(step.kind.prompt)
    return not written & (read if read is not None else written)


__all__ = ["review", "reviewed"]
