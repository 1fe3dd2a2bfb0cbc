"""Any process may die, with real engines too: five cells of the table in tests/ray/test_kills.py.

They follow each other on one cluster: each begins where the one before has ended.
"""

import asyncio
import time

import psutil
import pytest
import yaml

from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import is_mixed
from tests.cluster import ROOT, release_of

pytestmark = pytest.mark.faults

QUESTIONS = ["I was charged twice.", "The app crashes."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


def write(folder, name):
    """Write support v2 with a writer of its own and a prompt that says its name; return its path."""
    document = yaml.safe_load((ROOT / "models/support/v2.yaml").read_text())
    document["engines"]["writer"]["llm_config"]["engine_kwargs"]["max_num_seqs"] = 20
    document["chains"]["support-agent"]["steps"][1]["generate"]["prompt"] = f"Answer briefly ({name})."
    document["rollback_window"] = "2s"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def writers(support, status, number):
    """Return the replicas of a release's writer."""
    digest = release_of(status, number)["engines"]["writer"]["digest"]
    return support.replicas(f"engine-{status['installation']}-{digest[:12]}", "engine")


def vllm_processes():
    """Return vLLM's own processes, which replicas start: one for each engine."""
    return [p for p in psutil.process_iter(["name", "cmdline"]) if "VLLM::EngineCore" in "".join(p.cmdline())]


def kill(*processes):
    assert processes
    for process in processes:
        process.kill()


class Load:
    """A steady load, and what became of its requests."""

    def __init__(self, support):
        plan = Plan(support.url, "support-agent", QUESTIONS, rate=0.5, max_tokens=16)
        self._generator = LoadGenerator(plan)

    async def __aenter__(self):
        self._task = asyncio.create_task(self._generator.run())
        return self

    async def __aexit__(self, *exc):
        self._generator.stop()
        await self._task

    def errors(self):
        return [record.error for record in self._generator.records if record.error]

    def mixed(self, status):
        return sum(is_mixed(r, status) for r in self._generator.records if not r.error)


# The manager dies while a release loads a real engine: the next one goes on with the load, no request is
# lost, and the release goes live.
@pytest.mark.timeout(300)
async def test_manager_killed_in_loading(support, folder):
    async with Load(support) as load:
        support.deploy(write(folder, "third"))
        await asyncio.to_thread(support.until, in_state("third", "loading"), 60)
        kill(*support.replicas("interlock", "SwapManager"))
        status = await asyncio.to_thread(support.until, in_state("third", "live"), 240)
    assert load.errors() == []
    assert load.mixed(status) == 0


# Serve's controller dies while a release warms up: requests go on, and the release goes live.
@pytest.mark.timeout(300)
async def test_controller_killed_in_warming(support, folder):
    async with Load(support) as load:
        support.deploy(write(folder, "fourth"))
        await asyncio.to_thread(support.until, in_state("fourth", "warming"), 60)
        kill(support.controller())
        status = await asyncio.to_thread(support.until, in_state("fourth", "live"), 120)
    assert load.errors() == []
    assert load.mixed(status) == 0


# A gateway dies beside a standby: what it held is lost, and the next one serves as soon as it has a table.
@pytest.mark.timeout(300)
async def test_gateway_killed_in_standby(support):
    live = support.status()["live"]
    processes = support.replicas("interlock", "Gateway")
    kill(*processes)
    psutil.wait_procs(processes)
    support.until_ready(60)
    status = support.until(lambda status: len(status["gateways"]) == 1, 60)
    assert status["live"] == live
    assert support.chat(max_tokens=4).json()["interlock"]["release"] == live


# The live release's only replica dies: Serve repairs it, and a request that had no byte yet is answered by
# the repaired one or told in OpenAI's shape; nothing of the dead one stays behind.
@pytest.mark.timeout(300)
async def test_live_engine_killed(support):
    status = support.status()
    before = len(vllm_processes())
    async with Load(support):
        kill(*writers(support, status, status["live"]))
        answer = await asyncio.to_thread(support.chat, max_tokens=4)
    assert answer.status_code == 200 or answer.json()["error"]["type"]
    end = time.monotonic() + 120
    while (answer := support.chat(max_tokens=4)).status_code != 200 and time.monotonic() < end:
        await asyncio.sleep(0.5)
    assert answer.status_code == 200, answer.text
    assert support.status()["live"] == status["live"]
    assert len(vllm_processes()) == before


# The whole node dies and comes back, deployed as before: the store's live release is loaded and warmed
# before `/readyz` says yes, and answers.
@pytest.mark.timeout(400)
async def test_node_killed(support, folder):
    live = support.status()["live"]
    await asyncio.to_thread(support.cluster.crash)
    await asyncio.to_thread(support.cluster.restart)
    support.deploy(folder / "fourth.yaml")
    support.until_ready(240)
    status = support.until(lambda _: True, 10)
    assert status["live"] == live
    assert release_of(status, live)["warm"]
    assert support.chat(max_tokens=4).status_code == 200


def in_state(name, state):
    """Return a condition: the release of the set of that name is in a state."""

    def holds(status):
        found = [r for r in status["releases"] if r["source"].endswith(f"/{name}.yaml")]
        assert not any(release["reason"] for release in found), found
        return bool(found) and found[-1]["state"] == state

    return holds
