"""The ledger against the engines' own receipts, over everything that was asked on the session's cluster."""

import asyncio
import time

from benchmarks.load import LoadGenerator, Plan
from runtime.core.usage import Usage
from runtime.store.database import open_store
from runtime.store.ledger import Ledger
from tests.ray.conftest import scripted

REQUESTS = 400


def receipts(cluster):
    """Return what the scripted engines wrote down, apart from any meter."""
    lines = (cluster.folder / "receipts").read_text().split()
    return Usage(sum(map(int, lines[::2])), sum(map(int, lines[1::2])))


async def _until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        await asyncio.sleep(0.2)


# With a third of all streams broken off at random, swaps going on, and a gateway killed while it
# answers, the ledger equals what the engines generated to the token; no hop is in it twice.
async def test_ledger_equals_receipts(interlock, cluster, write_set):
    plan = Plan(
        interlock.url, "support-agent", ["my bill"], rate=15, abandon_share=0.33, max_tokens=20, seed=5
    )
    load = LoadGenerator(plan)
    interlock.swap_to(write_set("usage-0", scripted(40)))
    offered = asyncio.create_task(load.run())
    for version in (41, 42):
        await asyncio.to_thread(interlock.swap_to, write_set(f"usage-{version}", scripted(version)))
    await _until(lambda: len(load.records) > REQUESTS / 2, 60)
    victim = interlock.replicas("interlock", "Gateway")[0]
    victim.kill()
    await asyncio.to_thread(interlock.swap_to, write_set("usage-43", scripted(43)))
    await _until(lambda: len(load.records) > REQUESTS, 60)
    load.stop()
    await offered
    ledger = Ledger(open_store(cluster.env["INTERLOCK_STORE_URL"]))
    await _until(lambda: ledger.total() == receipts(cluster), 60)
    outcomes = {group["outcome"]: group["hops"] for group in ledger.usage("outcome")}
    assert ledger.total()[:2] == receipts(cluster)[:2], outcomes
    assert outcomes["cancelled"] > REQUESTS / 10
    ledger.close()
