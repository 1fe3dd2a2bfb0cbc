"""Warming a release: its own chains with its own samples, on every replica of every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.control.cluster import Cluster
from runtime.core.chain import ChainRun
from runtime.core.digest import Content
from runtime.core.specs import Chain, Sample
from runtime.core.usage import Usage, total
from runtime.errors import InterlockError, WarmupError


async def warm(content: Content, cluster: Cluster, progress: Callable[[str], None]) -> Usage:
    """Run every sample through its chain and return the tokens that it took.

    Each call runs on all replicas of its engine at once; the first replica's result goes on to the
    next step, as a request's would.

    Raises:
        WarmupError: says which chain and which sample.

    """
    runs = [
        (name, chain, position, sample)
        for name, chain in content.model_set.chains.items()
        for position, sample in enumerate(chain.samples)
    ]
    spent = Usage()
    for done, (name, chain, position, sample) in enumerate(runs):
        progress(f"sample {done + 1} of {len(runs)}")
        try:
            async with asyncio.timeout(chain.deadline):
                spent = spent.plus(await _walk(chain, sample, content.engines, cluster))
        except TimeoutError as error:
            reason = f"took longer than the chain's deadline of {chain.deadline:g} s"
            raise WarmupError(f"chains.{name}.samples[{position}]: {reason}") from error
        except InterlockError as error:
            raise WarmupError(f"chains.{name}.samples[{position}]: {error}") from error
    return spent


async def _walk(chain: Chain, sample: Sample, engines: dict[str, str], cluster: Cluster) -> Usage:
    run = ChainRun(chain, sample.messages, {})
    spent = Usage()
    while (hop := run.next_hop()) is not None:
        results = await cluster.warm(engines[hop.engine], hop.operation, hop.body)
        spent = spent.plus(total(result.usage for result in results))
        run.record(results[0].result)
    return spent
