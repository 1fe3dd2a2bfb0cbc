"""The ledger against the engines' own receipts, on a real cluster, whatever happens to whom."""

import asyncio
import itertools
import time

import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster
from benchmarks.parts.local_postgresql import local_postgresql
from benchmarks.parts.open_loop import LoadGenerator, Plan
from runtime.core.metering.usage import Usage
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from tests.cluster import ROOT, Deployed
from tests.ray.conftest import scripted

# With PostgreSQL all of them beside the other long runs: what differs there is the store's transactions.
REQUESTS = [
    ("sqlite", 2000),
    ("postgresql", 800),
    pytest.param(("postgresql", 2000), marks=pytest.mark.faults),
]

# Per second: at 35, of 8 tokens each, two slow cores left a starting engine so little that requests piled up.
RATE = 25

GATEWAYS = 2


@pytest.fixture(scope="module")
def postgresql_url():
    with local_postgresql() as server:
        yield server.get_uri(driver="psycopg")


@pytest.fixture(params=REQUESTS, ids=lambda param: f"{param[0]}-{param[1]}")
def metered(request):
    """Interlock on a cluster of its own, with a store of each kind, and how many requests it gets."""
    store, requests = request.param
    url = request.getfixturevalue("postgresql_url") if store == "postgresql" else None
    with LocalCluster(ROOT, url) as cluster:
        deployed = Deployed(cluster, gateways=GATEWAYS)
        deployed.swap_to(write(cluster, 0), seconds=90)
        yield deployed, requests
        deployed.close()


def write(cluster, version):
    """Write a version of the set whose engines note what they generate, apart from any meter."""
    # Answers that last longer than a slow machine takes to hear that their client has left, in few pieces.
    document = scripted(version, tokens=4, inter_token="200ms")
    for engine in document["engines"].values():
        engine["receipts"] = str(cluster.folder / "receipts")
    path = cluster.folder / f"v{version}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def receipts(cluster):
    """Return what the scripted engines wrote down."""
    lines = (cluster.folder / "receipts").read_text().split()
    return Usage(sum(map(int, lines[::2])), sum(map(int, lines[1::2])))


async def until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        await asyncio.sleep(0.2)


async def swap_until(deployed, load, requests, versions):
    """Swap from one version to the next until so many requests have been sent."""
    while len(load.records) < requests:
        version = write(deployed.cluster, next(versions))
        await asyncio.to_thread(deployed.swap_to, version, seconds=150)


# Of many chain requests a third is cut off by the client at a random byte; swaps go on, and a
# gateway is killed while it answers: the ledger equals what the engines generated to the token.
@pytest.mark.timeout(300)
async def test_ledger_equals_receipts(metered):
    deployed, requests = metered
    plan = Plan(
        *(deployed.url, "support-agent", ["my bill"]),
        rate=RATE,
        stream_share=1.0,
        abandon_share=0.33,
        max_tokens=4,
        seed=5,
    )
    load, versions = LoadGenerator(plan), itertools.count(1)
    offered = asyncio.create_task(load.run())
    await swap_until(deployed, load, requests / 2, versions)
    deployed.replicas("interlock", "Gateway")[0].kill()
    await swap_until(deployed, load, requests, versions)
    load.stop()
    await offered
    ledger = Ledger(open_store(deployed.cluster.store_url))
    await until(lambda: ledger.total() == receipts(deployed.cluster), 60)
    outcomes = {group["outcome"]: group["hops"] for group in ledger.usage("outcome")}
    assert ledger.total() == receipts(deployed.cluster), outcomes
    ledger.close()
    assert outcomes["cancelled"] > requests / 10
