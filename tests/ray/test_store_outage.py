"""PostgreSQL under load: away, read-only, and on a host that has frozen.

Requests are told so in time, nothing is spent that is not counted, and all goes on by itself once it is back.
"""

import asyncio
import collections
import os
import signal
import time
from contextlib import contextmanager

import httpx
import psutil
import psycopg
import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster
from benchmarks.parts.local_postgresql import local_postgresql
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from tests.cluster import ROOT, Deployed
from tests.ray.conftest import scripted
from tests.ray.test_usage import receipts, until

DEADLINE_S = 10.0
LATE_S = 2.0
RATE = 8
"""Requests per second, each with a key, a budget, and two hops."""

BACK_S = 30.0
"""How long after the store is back everything may take to be as before."""


def write(cluster, version):
    """Write a version of the set whose engines note what they generate, apart from any meter."""
    document = scripted(version, tokens=4, inter_token="50ms")
    document["chains"]["support-agent"]["deadline"] = f"{DEADLINE_S:g}s"
    for engine in document["engines"].values():
        engine["receipts"] = str(cluster.folder / "receipts")
    path = cluster.folder / f"v{version}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def stopped(server):
    server._stop()
    yield
    server.ensure_postgres_running()


@contextmanager
def read_only(server):
    """As while a standby has not been promoted yet, or an operator has shut writing off."""
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        setting = "default_transaction_read_only"
        connection.execute(f"alter system set {setting} = on")
        connection.execute("select pg_reload_conf()")
        yield
        connection.execute(f"set {setting} = off")
        connection.execute(f"alter system reset {setting}")
        connection.execute("select pg_reload_conf()")


@contextmanager
def frozen(server):
    """Its kernel goes on taking what is sent."""
    postmaster = psutil.Process(server.get_pid())
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    yield
    for process in processes:
        os.kill(process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def postgresql():
    with local_postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def deployed(postgresql):
    """Interlock with two gateways, a tenant with a key, and a budget that no request reaches."""
    with LocalCluster(ROOT, postgresql.get_uri(driver="psycopg")) as cluster:
        deployed = Deployed(cluster, gateways=2)
        deployed.swap_to(write(cluster, 0), seconds=90)
        key = deployed.http.post("/admin/v1/keys", json={"tenant": "acme"}).json()["key"]
        deployed.bearer = {"authorization": f"Bearer {key}"}
        budget = {"tenant": "acme", "limit": 10**9}
        assert deployed.http.put("/admin/v1/budgets", json=budget).status_code == 200
        yield deployed
        deployed.close()


class Load:
    """Offers requests with the key, evenly; keeps when each began, its status, and what it took."""

    def __init__(self, deployed):
        self._url, self._bearer = deployed.url, deployed.bearer
        self.answers = []
        self._stopped = False

    async def run(self):
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, trust_env=False, limits=limits) as client,
            asyncio.TaskGroup() as asking,
        ):
            while not self._stopped:
                asking.create_task(self._ask(client, stream=len(self.answers) % 2 == 0))
                await asyncio.sleep(1 / RATE)

    def stop(self):
        self._stopped = True

    async def _ask(self, client, *, stream):
        body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}]}
        begun = time.monotonic()
        answer = await client.post(
            "/v1/chat/completions", json={**body, "stream": stream}, headers=self._bearer
        )
        self.answers.append((begun, answer.status_code, time.monotonic() - begun, answer.text))

    def well_since(self, begun):
        """Say whether requests that began since then were answered, all of them well."""
        statuses = {status for at, status, _, _ in self.answers if at >= begun}
        return statuses == {200}


# No request is kept past its deadline, none is a 500 or a 401, a swap that was under way goes on with the
# same manager, all is as before soon after, and the ledger equals what the engines have generated.
@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("outage", "seconds"),
    [(frozen, 30.0), (read_only, 30.0), (stopped, 60.0)],
    ids=["frozen", "read-only", "stopped"],
)
async def test_the_store_is_away(deployed, postgresql, outage, seconds):
    version = {frozen: 1, read_only: 2, stopped: 3}[outage]
    manager = deployed.replicas("interlock", "SwapManager")[0].pid
    load = Load(deployed)
    offered = asyncio.create_task(load.run())
    await asyncio.sleep(5)
    deployed.deploy(path := write(deployed.cluster, version))
    with outage(postgresql):
        await asyncio.sleep(seconds)
    await until(lambda: load.well_since(time.monotonic() - 3.0), BACK_S)
    await asyncio.to_thread(deployed.swap_to, path, seconds=90)
    again = time.monotonic()
    await asyncio.sleep(5)
    load.stop()
    await offered
    told = collections.Counter(status for _, status, _, _ in load.answers)
    assert told.keys() <= {200, 503, 504}, [a for a in load.answers if a[1] not in (200, 503, 504)][:3]
    assert told[200] < len(load.answers)  # it was away
    assert max(took for _, _, took, _ in load.answers) <= DEADLINE_S + LATE_S
    assert load.well_since(again)
    refused = [text for _, status, _, text in load.answers if status != 200]
    assert not [text for text in refused if "socket" in text or "/tmp" in text]
    assert deployed.replicas("interlock", "SwapManager")[0].pid == manager
    ledger = Ledger(open_store(deployed.cluster.store_url))
    await until(lambda: ledger.total() == receipts(deployed.cluster), 60)
    assert ledger.total() == receipts(deployed.cluster)
    ledger.close()
