"""Running a warm-up: each call goes to every replica of its engine.

Which runs there are, and in which order, is ``core.model_set.warming``'s.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.control.cluster import Cluster
from runtime.core.metering.cost import FREE
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.metering.usage import Usage, total
from runtime.core.model_set.digest import Content
from runtime.core.model_set.warming import Round, Run, probes, rounds
from runtime.core.walk.call import Call, Operation, Result, result_of
from runtime.core.walk.walk import UnrenderedPrompt
from runtime.engines.port import WarmResult
from runtime.engines.tally import TAG
from runtime.errors import InterlockError, WarmupError
from runtime.walking.driver import drive


@dataclass(frozen=True)
class Warmed:
    """What a warm-up, or a probe, has spent, and the probes' answers by their place in the model set."""

    usage: Usage
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)


NO_TAG = HopTag("", purpose=Purpose.WARMUP)
"""The tag of a warm-up that belongs to no release."""


@dataclass(frozen=True)
class _Caller:
    """Makes the calls of one release's warm-up, tagged as such."""

    content: Content
    cluster: Cluster
    tag: HopTag

    async def call(self, run: Run, call: Call) -> list[WarmResult]:
        """Make a call on every replica of its engine."""
        engine = self.content.engines[call.engine]
        tag = self.tag._replace(chain=run.key, step=call.step, engine=engine)
        tag = tag.priced(self.content.model_set.prices.get(call.engine, FREE))
        return await self.cluster.warm(engine, call.operation, {**run.body(call), TAG: tag.plain()})


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


async def warm(
    content: Content, cluster: Cluster, progress: Callable[[str], None], tag: HopTag = NO_TAG
) -> Warmed:
    """Make all rounds of a warm-up and return what it took.

    The first replica's result goes on to the next step, as a request's would. ``tag`` names for the
    ledger the release that warms up; each replica gives its call an id of its own.

    Raises:
        WarmupError: names the chain and the sample.

    """
    spent, answers = Usage(), _Answers()
    for each in rounds(content):
        kept = answers if each.recorded else _Answers()
        making = _together if each.at_once else _in_turn
        spent = spent.plus(await making(each, _Caller(content, cluster, tag), progress, kept))
    return Warmed(spent, answers.sorted())


async def probe(content: Content, cluster: Cluster, tag: HopTag = NO_TAG) -> Warmed:
    """Ask every replica for the start of its answer to each sample, without chance.

    Raises:
        WarmupError: names the chain and the sample.

    """
    spent, answers = Usage(), _Answers()
    for run in probes(content.model_set):
        spent = spent.plus(await _make(run, _Caller(content, cluster, tag), answers))
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


async def _in_turn(each: Round, caller: _Caller, progress: Callable[[str], None], answers: _Answers) -> Usage:
    spent = Usage()
    for done, run in enumerate(each.runs, start=1):
        progress(f"{each.label}: {done} of {len(each.runs)}")
        spent = spent.plus(await _make(run, caller, answers))
    return spent


async def _together(
    each: Round, caller: _Caller, progress: Callable[[str], None], answers: _Answers
) -> Usage:
    progress(each.label)
    runs = each.runs * each.times
    together = [asyncio.create_task(_make(run, caller, answers)) for run in runs]
    try:
        return total(await asyncio.gather(*together))
    finally:
        for task in together:
            task.cancel()


async def _make(run: Run, caller: _Caller, answers: _Answers) -> Usage:
    try:
        async with asyncio.timeout(run.chain.deadline):
            return await _walk(run, caller, answers)
    except TimeoutError as error:
        reason = f"took longer than the chain's deadline of {run.chain.deadline:g} s"
        raise WarmupError(f"{run.key}: {reason}") from error
    except InterlockError as error:
        raise WarmupError(f"{run.key}: {error}") from error


async def _walk(run: Run, caller: _Caller, answers: _Answers) -> Usage:
    """Make a run's calls. A prompt that cannot use an earlier answer's few tokens ends the walk."""
    spent, cut = Usage(), False

    async def make(call: Call) -> Result:
        nonlocal spent, cut
        results = await caller.call(run, call)
        spent = spent.plus(total(result.usage for result in results))
        answers.add(f"{run.key}.{call.id}", results)
        cut = cut or (call.operation is Operation.GENERATE and bool(run.sampling))
        return result_of(call.operation, results[0].result)

    try:
        await drive(run.walk(), make)
    except UnrenderedPrompt:
        if not cut:
            raise
    return spent
