"""Warming a release: its own chains with its own samples, on every replica of every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from runtime.control.cluster import Cluster
from runtime.core.chain import ChainRun
from runtime.core.digest import Content
from runtime.core.specs import Chain, Sample
from runtime.core.usage import Usage, total
from runtime.errors import InterlockError, WarmupError

AT_ONCE = 4
"""How many runs of each sample go together in the second round."""


@dataclass(frozen=True)
class _Run:
    """One sample on its way through its chain; ``key`` is its place in the model set."""

    key: str
    chain: Chain
    sample: Sample


async def warm(content: Content, cluster: Cluster, progress: Callable[[str], None]) -> Usage:
    """Run every sample through its chain and return the tokens that it took.

    First each sample alone, which is what finds out what does not work; then all of them together,
    several times each: engines prepare kernels and buffers for the batch sizes that they meet, and the
    first requests after a cutover come together. Each call runs on all replicas of its engine; the
    first replica's result goes on to the next step, as a request's would.

    Raises:
        WarmupError: says which chain and which sample.

    """
    runs = _runs(content)
    spent = Usage()
    for done, run in enumerate(runs):
        progress(f"sample {done + 1} of {len(runs)}")
        spent = spent.plus(await _warm_one(run, content, cluster))
    progress(f"{len(runs)} samples at once, {AT_ONCE} of each")
    together = [asyncio.create_task(_warm_one(run, content, cluster)) for run in runs * AT_ONCE]
    try:
        return spent.plus(total(await asyncio.gather(*together)))
    finally:
        for task in together:
            task.cancel()


def _runs(content: Content) -> list[_Run]:
    return [
        _Run(f"chains.{name}.samples[{position}]", chain, sample)
        for name, chain in content.model_set.chains.items()
        for position, sample in enumerate(chain.samples)
    ]


async def _warm_one(run: _Run, content: Content, cluster: Cluster) -> Usage:
    try:
        async with asyncio.timeout(run.chain.deadline):
            return await _walk(run.chain, run.sample, content.engines, cluster)
    except TimeoutError as error:
        reason = f"took longer than the chain's deadline of {run.chain.deadline:g} s"
        raise WarmupError(f"{run.key}: {reason}") from error
    except InterlockError as error:
        raise WarmupError(f"{run.key}: {error}") from error


async def _walk(chain: Chain, sample: Sample, engines: dict[str, str], cluster: Cluster) -> Usage:
    run = ChainRun(chain, sample.messages, {})
    spent = Usage()
    while (hop := run.next_hop()) is not None:
        results = await cluster.warm(engines[hop.engine], hop.operation, hop.body)
        spent = spent.plus(total(result.usage for result in results))
        run.record(results[0].result)
    return spent
