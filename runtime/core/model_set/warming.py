"""What a warm-up runs, and in which order, without I/O.

The purpose of each round decides its place. Every sample alone, with what clients send beside it,
finds out what does not work and has the grammars compiled. Prompts of the declared lengths, and then
all samples together in each declared size, make engines compile and capture what such batches need.
The probes are recorded, so that an engine that has slept can be held against itself. Last come the
heads of the prompts, for one token each: they are then the newest blocks in the prefix cache, and
nothing after them pushes them out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any

from runtime.core.declaration.units import format_duration
from runtime.core.model_set.digest import Content
from runtime.core.model_set.model_set import ModelSet
from runtime.core.requests.messages import Message, normal_messages
from runtime.core.walk.call import Call, Operation, Result
from runtime.core.walk.chain import Chain, Sample, Step
from runtime.core.walk.steps.generate import Generate
from runtime.core.walk.walk import Walk
from runtime.errors import InvalidRequest

PROBES = 2
"""How often each probe is asked: the second finds its prompt in the prefix cache, as later ones may."""

PROBE_TOKENS = 8
"""How many tokens of an answer are compared."""

MAX_COMBINATIONS = 16
"""How many combinations of its routes' choices a chain's prompts are rendered with."""

_HEAD = {"max_tokens": 1, "min_tokens": 0, "n": 1}
_PROBE = {**_HEAD, "max_tokens": PROBE_TOKENS, "temperature": 0.0, "seed": 0}

# Short and common enough to be one token each wherever English was trained on.
_WORDS = ("the", "of", "and", "to", "in", "is", "that", "for")


@dataclass(frozen=True)
class Run:
    """A sample on its way through a chain. ``key`` says which, for messages."""

    key: str
    chain: Chain
    sample: Sample
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the generating steps, over their own sampling and the sample's params."""
    given: Mapping[str, Result] = field(default_factory=dict)
    """What steps have come to that are not called."""

    def walk(self) -> Walk:
        """Return the walk of this run, at its start."""
        return Walk(self.chain, _conversation(self.sample), self.sample.params, self.given)

    def body(self, call: Call) -> Mapping[str, Any]:
        """Return what is sent for a call of the walk."""
        return {**call.body, **self.sampling} if call.operation is Operation.GENERATE else call.body


def _conversation(sample: Sample) -> list[Message]:
    """Return a sample's messages as a gateway would hand them on; as they are, if it would refuse them.

    A set of the journal may have been taken when they were not checked: the engine reports what is wrong.
    """
    messages = list(sample.messages)
    try:
        return normal_messages(messages)
    except InvalidRequest:
        return messages


@dataclass(frozen=True)
class Round:
    """Runs that are made for one purpose, which ``label`` names in progress reports."""

    label: str
    runs: tuple[Run, ...]
    at_once: int = 0
    """How many of each run are under way together, with all the others; 0: one run after the other."""
    recorded: bool = False
    """Whether the answers are kept, for engines to be held against."""

    @property
    def times(self) -> int:
        """How often each run is made."""
        return max(1, self.at_once)


def rounds(content: Content) -> tuple[Round, ...]:
    """Return the rounds of a warm-up in their order."""
    model_set = content.model_set
    samples = _samples(model_set)
    return (
        Round("samples", samples),
        Round("prompt lengths", _lengths(content)),
        *(_together(samples, size) for size in sorted(set(model_set.warmup.at_once))),
        *([Round("probes", probes(model_set), recorded=True)] * PROBES),
        Round(_heads_label(model_set), (*_heads(model_set), *_samples(model_set, _HEAD))),
    )


def probes(model_set: ModelSet) -> tuple[Run, ...]:
    """Return the runs whose answers are compared: the start of each sample's, without chance."""
    return _samples(model_set, _PROBE)


def _samples(model_set: ModelSet, sampling: Mapping[str, Any] | None = None) -> tuple[Run, ...]:
    return tuple(
        Run(f"chains.{name}.samples[{position}]", chain, sample, sampling or {})
        for name, chain in model_set.chains.items()
        for position, sample in enumerate(chain.samples)
    )


def _together(samples: tuple[Run, ...], size: int) -> Round:
    runs = tuple(replace(run, key=f"{run.key} (warmup.at_once: {size})") for run in samples)
    return Round(f"{len(samples) * size} runs together, {size} of each sample", runs, at_once=size)


# -- lengths --------------------------------------------------------------------------------------


def _lengths(content: Content) -> tuple[Run, ...]:
    warmup = content.model_set.warmup
    engines = {content.engines[name]: name for name in content.model_set.generating}
    return tuple(
        _prompt_of(tokens, engine, warmup.timeout)
        for tokens in sorted(set(warmup.prompt_tokens))
        for engine in engines.values()
    )


def _prompt_of(tokens: int, engine: str, deadline: float) -> Run:
    """Return a call of one engine as a chain of one step, so that it goes the way of the others."""
    sample = Sample(messages=({"role": "user", "content": filler(tokens)},))
    chain = Chain(
        deadline=format_duration(deadline),
        steps=(Step(id="read", generate=Generate(engine=engine)),),
        answer="read",
        samples=(sample,),
    )
    # The chat template adds tokens of its own: cutting makes the length exact.
    cut = {**_HEAD, "truncate_prompt_tokens": tokens}
    return Run(f"warmup.prompt_tokens: {tokens} on engine {engine!r}", chain, sample, cut)


def filler(tokens: int) -> str:
    """Return a text of ``tokens`` common words. Texts of different lengths share no prefix to be cached."""
    return " ".join(islice(_words(tokens), tokens))


def _words(tokens: int) -> Iterator[str]:
    """Yield words by a hash: the same in every process, and other ones for every length."""
    for part in range(tokens):
        digest = hashlib.sha256(f"{tokens} {part}".encode()).digest()
        yield from (_WORDS[byte % len(_WORDS)] for byte in digest)


# -- heads ----------------------------------------------------------------------------------------


def _heads(model_set: ModelSet) -> Iterator[Run]:
    """Yield the first sample of each chain with routes as if they had chosen each combination.

    A prompt may begin otherwise for each choice, and samples need not lead to all of them.
    """
    for name, chain in model_set.chains.items():
        for given in combinations(chain):
            if given:
                choices = ", ".join(f"{step} {result[0]}" for step, result in given.items())
                key = f"chains.{name}.samples[0] with {choices}"
                yield Run(key, chain, chain.samples[0], _HEAD, given)


def combinations(chain: Chain) -> list[Mapping[str, Result]]:
    """Return what the steps of a chain can come to that have few results; ``MAX_COMBINATIONS`` at most.

    If there are more, each result is in one before any is in all: most prompts read a single route.
    """
    outcomes = _outcomes(chain)
    options = [range(len(results)) for results in outcomes.values()]
    longest = max(map(len, options), default=0)
    each = [tuple(n % len(option) for option in options) for n in range(longest)]
    chosen = dict.fromkeys([*each, *islice(product(*options), MAX_COMBINATIONS)])
    return [
        {step: results[n] for (step, results), n in zip(outcomes.items(), numbers, strict=True)}
        for numbers in islice(chosen, MAX_COMBINATIONS)
    ]


def _outcomes(chain: Chain) -> dict[str, Sequence[Result]]:
    return {step.id: step.kind.outcomes for step in chain.steps if step.kind.outcomes}


def _heads_label(model_set: ModelSet) -> str:
    chains = model_set.chains.values()
    there = sum(math.prod(map(len, _outcomes(chain).values())) for chain in chains)
    run = sum(len(combinations(chain)) for chain in chains)
    return "prompt heads" if run == there else f"prompt heads, {run} of {there} combinations of choices"
