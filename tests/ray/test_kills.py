"""Any process may die: each is killed in each phase of a swap, on a real cluster with scripted engines.

The table is `VICTIMS` times `PHASES`. Whatever is killed, the committed release serves afterwards, the
swap has gone on or has failed with a reason, and nothing is left over or missing.
"""

import asyncio
import itertools
import time

import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster
from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import is_mixed
from tests.cluster import ROOT, Deployed, release_of
from tests.ray.conftest import scripted

CANDIDATE, OLD = "candidate", "old"

PHASES = {
    # phase: (whose state it is, what makes it last long enough to be met)
    "loading": (CANDIDATE, {"load": "1s"}),
    "warming": (CANDIDATE, {}),
    "draining": (OLD, {}),
    "standby": (OLD, {}),
    "verifying": (CANDIDATE, {"ping": "1s"}),
    "unloading": (OLD, {}),
}
"""In this order: what keeps the writer of the phase before must not inherit its slow ping."""

LOSSLESS = ("manager", "controller")
"""Killing these costs no client anything."""

VICTIMS = ("manager", "gateway", "engines", "controller", "node")
"""`engines` are the writers of both releases, at once."""

PROMPT_ONLY = ("warming", "draining", "standby")
"""Phases that are met without a new writer, which takes seconds to start."""

DIAGONAL = {
    ("manager", "warming"),
    ("gateway", "draining"),
    ("engines", "standby"),
    ("controller", "loading"),
}
"""Each victim but the node, each in another phase: these are run always, the others by `make test-faults`.

The node's are all there, for it takes a minute to come back.
"""

TOKENS = 1500
"""As many tokens as a stream can have that keeps the old release draining, 10 ms each."""

QUICK_DRAIN = 800
"""As many where nothing is loaded in between: the stream only has to outlast a warm-up."""

_versions = itertools.count(100)


@pytest.fixture(scope="module")
def doomed():
    """Interlock on a cluster of its own: what happens here must not happen to other tests."""
    with LocalCluster(ROOT) as cluster:
        deployed = Deployed(cluster, gateways=2, gateway_silence_s=3.0, heartbeat_s=0.5)
        deployed.writer = {"reply": "first-"}
        deployed.swap_to(write(deployed, "nobody", "warming"), seconds=90)
        yield deployed
        deployed.close()


def keeps_writer(victim, phase):
    """Say whether the phase is met without loading a new writer."""
    return phase in PROMPT_ONLY and victim in ("manager", "gateway", "controller")


def write(deployed, victim, phase):
    """Write the next version of the set; return its path."""
    version = next(_versions)
    writer = deployed.writer if keeps_writer(victim, phase) else {"reply": f"v{version}-", **PHASES[phase][1]}
    deployed.writer = writer
    quick = {"load": "100ms", "tokens": TOKENS, "deployment_config": {"health_check_period_s": 1.0}}
    document = scripted(version, **{**quick, **writer})
    document["chains"]["support-agent"]["steps"][1]["generate"] |= {
        "prompt": f"{version}: {{{{ steps.triage.choice }}}}",
        "sampling": {"max_tokens": 20},
    }
    path = deployed.cluster.folder / f"v{version}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def in_phase(phase, old):
    """Return a condition: the swap from release ``old`` is in ``phase``."""

    def holds(status):
        number = old if PHASES[phase][0] is OLD else status["wanted"]["release"]
        return status["wanted"]["release"] != old and release_of(status, number)["state"] == phase

    return holds


def victims(deployed, victim, status):
    """Return the processes to kill."""
    if victim == "controller":
        return [deployed.controller()]
    if victim in ("manager", "gateway"):
        return deployed.replicas("interlock", "SwapManager" if victim == "manager" else "Gateway")[:1]
    known = [r for r in status["releases"] if r["state"] != "retired"]
    digests = {release["engines"]["writer"]["digest"][:12] for release in known}
    return [
        p
        for digest in digests
        for p in deployed.replicas(f"engine-{status['installation']}-{digest}", "engine")
    ]


def kill(deployed, victim, phase, status, path):
    """Kill -9; return when. A node takes all with it; it is started and deployed to again."""
    if victim == "node":
        deployed.cluster.crash()
        deployed.cluster.restart()
        deployed.deploy(path)
        check_not_ready_before_warm(deployed)
        return time.perf_counter()
    least = 2 if (victim, phase) == ("engines", "loading") else 1
    end = time.monotonic() + 15
    while len(processes := victims(deployed, victim, status)) < least and time.monotonic() < end:
        time.sleep(0.02)
    assert processes, f"there is no {victim} to kill"
    for process in processes:
        process.kill()
    return time.perf_counter()


def check_not_ready_before_warm(deployed):
    """The store's live release comes back, warmed, before `/readyz` says yes."""
    deployed.until_ready(60)
    status = deployed.until(lambda _: True, 10)
    live = release_of(status, status["live"])
    assert live["warm"]
    digests = {engine["digest"] for engine in live["engines"].values()}
    assert {e["state"] for e in status["engines"] if e["digest"] in digests} == {"loaded"}


def settled(status):
    """Say whether the swap is over: what is not live is retired, and every gateway is known."""
    over = all(release["state"] in ("live", "retired") for release in status["releases"])
    warm = status["live"] is not None and release_of(status, status["live"])["warm"]
    decided = status["wanted"]["outcome"] in ("live", "failed")
    leases = sum(gateway["leases"] for gateway in status["gateways"])
    heard = not status["hearing"]
    return over and warm and heard and decided and not leases and len(status["gateways"]) == 2


def check_nothing_is_left_or_missing(deployed, status):
    """Hold the manager's engines against Serve's applications and the live release's references."""
    referred = {e["digest"][:12] for e in release_of(status, status["live"])["engines"].values()}
    assert {engine["digest"][:12] for engine in status["engines"]} == referred
    assert all(engine["state"] == "loaded" for engine in status["engines"])
    assert deployed.engine_apps() == referred


def check_answers(deployed, status):
    """The release that is committed answers."""
    answer = deployed.chat(max_tokens=2)
    assert answer.status_code == 200, answer.text
    assert answer.json()["interlock"]["release"] == status["live"]


def check_losses(records, victim, killed):
    """Only what was under way in the killed process may have ended in an error, and in OpenAI's shape.

    Where a gateway dies, Serve's proxy answers in its own.
    """
    failed = [record for record in records if record.error]
    if victim in LOSSLESS:
        assert [record.error for record in failed] == []
    for record in failed:
        assert record.sent <= killed <= record.ended, record
        assert victim == "gateway" or "HTTP 500" not in record.error, record.error


def cells():
    """Return the table, by victim."""
    return [
        pytest.param(victim, phase, marks=() if (victim, phase) in DIAGONAL else pytest.mark.faults)
        for victim, phase in itertools.product(VICTIMS, PHASES)
    ]


# Whatever process dies, in whatever phase of a swap, the committed release serves, the swap has gone on
# or failed with a reason, no lease is left, and exactly the engines exist that the live release refers to.
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("victim", "phase"), cells())
async def test_killed(doomed, victim, phase):
    old = doomed.until(settled, 60)["live"]
    path = write(doomed, victim, phase)
    load = LoadGenerator(Plan(doomed.url, "support-agent", ["my bill"], rate=5, max_tokens=20, seed=3))
    long = 20
    if phase == "draining":
        long = QUICK_DRAIN if keeps_writer(victim, phase) else TOKENS
    held = LoadGenerator(
        Plan(doomed.url, "support-agent", ["a bug"], rate=0.01, stream_share=1.0, max_tokens=long)
    )
    offered = [asyncio.create_task(load.run()), asyncio.create_task(held.run())]
    try:
        doomed.deploy(path)
        status = await asyncio.to_thread(doomed.until, in_phase(phase, old), 30)
        killed = await asyncio.to_thread(kill, doomed, victim, phase, status, path)
        status = await asyncio.to_thread(doomed.until, settled, 60)
    finally:
        load.stop()
        held.stop()
        await asyncio.gather(*offered)
    check_answers(doomed, status)
    check_nothing_is_left_or_missing(doomed, status)
    records = load.records + held.records
    assert sum(is_mixed(r, status) for r in records if not r.error) == 0
    if victim != "node":
        check_losses(records, victim, killed)
    if victim != "engines":
        assert status["wanted"]["outcome"] == "live", status["wanted"]["reason"]
        assert status["live"] == status["wanted"]["release"] != old
