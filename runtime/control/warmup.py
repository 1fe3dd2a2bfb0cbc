"""Warming a release: its own chains with its own samples, on every replica of every engine.

What warm-up is for decides its order. Each sample alone finds out what does not work. All of them
together, several times, make engines prepare for the batches that the first requests after a cutover
come in. The probes are recorded, so that an engine that has slept can be held against itself. And
last, each sample once more for one token: the heads of the prompts are then the newest blocks in the
prefix cache, and nothing after it pushes them out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.control.cluster import Cluster
from runtime.core.chain import ChainRun
from runtime.core.digest import Content
from runtime.core.specs import Chain, Sample
from runtime.core.usage import Usage, total
from runtime.engines.port import WarmResult
from runtime.errors import InterlockError, WarmupError

AT_ONCE = 4
"""How many runs of each sample go together in the second round."""

PROBES = 2
"""How often each probe is asked: the second finds its prompt in the prefix cache, as later ones may."""

PROBE_TOKENS = 8
"""How many tokens of an answer are compared."""

ROUNDS = 1 + AT_ONCE + PROBES + 1
"""How many times a warm-up runs each sample."""

_HEAD = {"max_tokens": 1, "max_completion_tokens": None, "min_tokens": 0}
_PROBE = {**_HEAD, "max_tokens": PROBE_TOKENS, "temperature": 0.0, "seed": 0}


@dataclass(frozen=True)
class Warmed:
    """What a warm-up, or a probe, has spent, and the probes' answers by their place in the model set."""

    usage: Usage
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """One sample on its way through its chain; ``key`` is its place in the model set."""

    key: str
    chain: Chain
    sample: Sample
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What the generating steps are asked with, over their own sampling."""


class _Answers:
    """What the replicas answered at each step of each run, each answer once."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, key: str, results: list[WarmResult]) -> None:
        self._seen[key].update(_text(result.result) for result in results)

    def sorted(self) -> dict[str, tuple[str, ...]]:
        return {key: tuple(sorted(texts)) for key, texts in sorted(self._seen.items())}


def _text(result: Mapping[str, Any]) -> str:
    """Return what is compared: a choice or a text, not the scores, whose last digits may differ."""
    return str(result.get("choice", result.get("text", "")))


async def warm(content: Content, cluster: Cluster, progress: Callable[[str], None]) -> Warmed:
    """Run every sample through its chain, in all rounds, and return what it took.

    Each call runs on all replicas of its engine; the first replica's result goes on to the next step,
    as a request's would.

    Raises:
        WarmupError: says which chain and which sample.

    """
    runs = _runs(content)
    spent = Usage()
    for done, run in enumerate(runs):
        progress(f"sample {done + 1} of {len(runs)}")
        spent = spent.plus(await _warm_one(run, content, cluster))
    progress(f"{len(runs)} samples at once, {AT_ONCE} of each")
    spent = spent.plus(await _together(runs * AT_ONCE, content, cluster))
    progress("probes and prompt heads")
    probed = [await probe(content, cluster) for _ in range(PROBES)]
    for run in _runs(content, _HEAD):
        spent = spent.plus(await _warm_one(run, content, cluster))
    answers = {
        key: tuple(sorted({text for one in probed for text in one.answers[key]})) for key in probed[0].answers
    }
    return Warmed(spent.plus(total(one.usage for one in probed)), answers)


async def probe(content: Content, cluster: Cluster) -> Warmed:
    """Ask every replica for the start of its answer to each sample, without chance.

    Raises:
        WarmupError: says which chain and which sample.

    """
    spent, answers = Usage(), _Answers()
    for run in _runs(content, _PROBE):
        spent = spent.plus(await _warm_one(run, content, cluster, answers))
    return Warmed(spent, answers.sorted())


def mismatch(recorded: Mapping[str, tuple[str, ...]], answered: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return which probe was answered otherwise than any replica did at the warm-up, or None.

    Replicas on different devices may round differently, so each has its own answer recorded.
    """
    for key, texts in answered.items():
        known = recorded.get(key)
        strange = [text for text in texts if known is not None and text not in known]
        if strange:
            return f"{key}: after its wake an engine answers {strange[0]!r}; at its warm-up it was {known}"
    return None


async def _together(runs: list[_Run], content: Content, cluster: Cluster) -> Usage:
    together = [asyncio.create_task(_warm_one(run, content, cluster)) for run in runs]
    try:
        return total(await asyncio.gather(*together))
    finally:
        for task in together:
            task.cancel()


def _runs(content: Content, sampling: Mapping[str, Any] | None = None) -> list[_Run]:
    return [
        _Run(f"chains.{name}.samples[{position}]", chain, sample, sampling or {})
        for name, chain in content.model_set.chains.items()
        for position, sample in enumerate(chain.samples)
    ]


async def _warm_one(run: _Run, content: Content, cluster: Cluster, answers: _Answers | None = None) -> Usage:
    try:
        async with asyncio.timeout(run.chain.deadline):
            return await _walk(run, content.engines, cluster, answers or _Answers())
    except TimeoutError as error:
        reason = f"took longer than the chain's deadline of {run.chain.deadline:g} s"
        raise WarmupError(f"{run.key}: {reason}") from error
    except InterlockError as error:
        raise WarmupError(f"{run.key}: {error}") from error


async def _walk(run: _Run, engines: Mapping[str, str], cluster: Cluster, answers: _Answers) -> Usage:
    walk = ChainRun(run.chain, run.sample.messages, {})
    spent = Usage()
    while (hop := walk.next_hop()) is not None:
        body = {**hop.body, **run.sampling} if hop.operation == "generate" else hop.body
        results = await cluster.warm(engines[hop.engine], hop.operation, body)
        spent = spent.plus(total(result.usage for result in results))
        answers.add(f"{run.key}.{hop.step}", results)
        walk.record(results[0].result)
    return spent
