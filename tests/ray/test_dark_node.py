"""A node that goes dark costs the requests that cross its link, and nobody else anything.

The two nodes are network namespaces: this needs root and iproute2 (`tests/two_nodes.py`).
"""

import asyncio
import json
import time
from contextlib import suppress

import httpx
import pytest
import yaml

from benchmarks.parts.local_cluster import free_port, interlock_application
from benchmarks.parts.local_postgresql import local_postgresql
from runtime.channel.client import Channel
from runtime.channel.connection import UNREACHED_S
from runtime.channel.engine_calls import answering
from runtime.channel.server import ChannelServer
from runtime.errors import EngineLost
from tests.cluster import ROOT, release_of
from tests.ray.conftest import scripted
from tests.two_nodes import HEAD, Caller, Switch, TwoNodes, inside
from tests.unit.channel.test_channel import ASK as HELLO
from tests.unit.channel.test_channel import Replica

DARK_S = 30.0
WHOLE_S = 10.0
"""How soon everything is as it was once the link is back."""

DEADLINE_S = 5.0
SILENCE_S = 6.0
ANSWER_S = 5.0
"""How long an operator may wait for an answer, at most, on a machine that is busy with all this."""

ON_HEAD = {"num_cpus": 0, "resources": {"head": 0.01}}

ASK = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}]}


def model_set(version):
    """Engines on the head only: the other node's requests cross the link. Versions differ in a prompt."""
    document = scripted(0)
    for engine in document["engines"].values():
        engine |= {"deployment_config": {"ray_actor_options": ON_HEAD}, "load": "100ms"}
    chain = document["chains"]["support-agent"]
    chain["deadline"] = f"{DEADLINE_S:g}s"
    chain["steps"][1]["generate"]["prompt"] = f"v{version} {{{{ steps.triage.choice }}}}"
    return {**document, "rollback_window": "10m"}


class Operator:
    """Who asks on the head; ``slowest`` is the longest that an answer has taken."""

    def __init__(self, cluster, port):
        self.cluster, self.port, self.slowest = cluster, port, 0.0

    def ask(self, method, path, **options):
        began = time.monotonic()
        with inside(self.cluster.switch.head):
            url = f"http://127.0.0.1:{self.port}{path}"
            answer = httpx.request(method, url, timeout=20.0, trust_env=False, **options)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert answer.is_success, answer.text
        return answer.json()

    def status(self):
        return self.ask("GET", "/admin/v1/status")

    def until(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition(status := self.status()):
            assert time.monotonic() < end, json.dumps(status, indent=1)
            time.sleep(0.2)
        return status

    def deploy(self, version):
        """Deploy a version; return what the status calls it."""
        path = self.cluster.folder / f"v{version}.yaml"
        path.write_text(yaml.safe_dump(model_set(version)))
        application = interlock_application(str(path), 2)
        gateway, manager = application["deployments"]
        gateway["max_replicas_per_node"] = 1
        manager["ray_actor_options"] = {**ON_HEAD, "runtime_env": {"env_vars": {"MALLOC_ARENA_MAX": "1"}}}
        application["args"] = {"gateway_silence_s": SILENCE_S}
        http = {"host": "127.0.0.1", "port": self.port}
        self.cluster.put({"http_options": http, "applications": [application]})
        return str(path)

    def until_up(self, source, seconds):
        """Return once the first version is live on both nodes; nobody answers at the beginning."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(httpx.TransportError, AssertionError):
                self.until(lambda status: is_live(status, source) and len(status["gateways"]) == 2, 1)
                return
            time.sleep(1)
        raise AssertionError(f"not up within {seconds} s")


def is_live(status, source):
    wanted = status["wanted"]
    if wanted is None or wanted["source"] != source:
        return False
    if wanted["outcome"] == "failed":
        pytest.fail(wanted["reason"])
    return wanted["outcome"] == "live" and release_of(status, wanted["release"])["acknowledged"] is not None


def follow(status):
    """Say whether both gateways route by a table in which the live release is live."""
    live = release_of(status, status["live"])
    return len(status["gateways"]) == 2 and live["acknowledged"] is not None


def replicas(cluster):
    """Return the process ids of Serve's replicas on both nodes."""
    titled = ((process.pid, "".join(process.cmdline())) for process in cluster.processes())
    return {pid for pid, title in titled if title.startswith("ray::ServeReplica:")}


@pytest.fixture
def two_nodes():
    with (
        local_postgresql() as server,
        Switch() as switch,
        TwoNodes(ROOT, server.get_uri(driver="psycopg"), switch) as cluster,
    ):
        operator = Operator(cluster, free_port())
        operator.until_up(operator.deploy(1), 180)
        yield cluster, operator


def live_in_the_dark(operator, end):
    """Swap, roll back, and ask for everything, while a node is dark."""
    second = operator.deploy(2)
    operator.until(lambda status: is_live(status, second), DARK_S - 5)
    operator.ask("POST", "/admin/v1/releases/rollback", json={}, headers={"if-match": "*"})
    operator.until(lambda status: status["live"] == 1, 5)
    while time.monotonic() < end:
        operator.status()
        operator.ask("GET", "/admin/v1/health")
        time.sleep(0.5)


# While a node is dark, the others' requests, the status, commands and swaps go on as if it were not there;
# only requests across its link fail, within their deadline. All is whole soon after it is back; no process
# was replaced.
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_node_goes_dark(two_nodes):
    cluster, operator = two_nodes
    before = replicas(cluster)
    here, there = callers = [Caller(node, operator.port, ASK) for node in cluster.switch.nodes]
    for caller in callers:
        caller.start()
    time.sleep(3)
    assert here.answered()
    assert there.answered()

    operator.slowest = 0.0
    cut = time.monotonic()
    cluster.switch.cut()
    live_in_the_dark(operator, cut + DARK_S)
    cluster.switch.mend()
    mended = time.monotonic()
    operator.until(follow, WHOLE_S)
    time.sleep(max(0.0, mended + WHOLE_S - time.monotonic()))
    whole = time.monotonic()
    time.sleep(DEADLINE_S)
    for caller in callers:
        caller.end()

    assert operator.slowest < ANSWER_S
    assert here.failed() == []
    assert there.failed()
    for began, ended, told in there.failed():
        assert cut - DEADLINE_S < began < whole, told
        assert ended - began < DEADLINE_S + 2.0, told
    assert [one for one in there.answered() if one[0] > whole]
    assert replicas(cluster) == before


async def rest(answer):
    async for _ in answer:
        pass


# A call over a link that is cut is told so within seconds, idle or not, and neither end keeps anything of it.
@pytest.mark.faults
@pytest.mark.parametrize("busy", [True, False])
async def test_a_channel_over_a_link_that_is_cut(busy):
    replica = Replica(inter_token="10ms" if busy else "1h", tokens=10**6, context_length=2 * 10**6)
    server = ChannelServer(answering(replica), "replica", 10)
    with Switch() as switch:
        with inside(switch.head):
            address = await server.open(HEAD)
        with inside(switch.worker):
            channel = Channel(address, lambda _: None)
            await channel.open()
        answer = channel.generate(HELLO)
        await anext(answer)
        switch.cut()
        began = time.monotonic()
        with pytest.raises(EngineLost):
            await rest(answer)
        while server._callers:
            await asyncio.sleep(0.1)
        assert time.monotonic() - began < UNREACHED_S + 3.0
        switch.mend()
        with inside(switch.worker):
            again = Channel(address, lambda _: None)
            async with asyncio.timeout(2):
                await again.open()
        assert await again.ask("count", "generate", HELLO) == 2
        await again.close()
        await server.close(0.0)
