import asyncio
import time

import pytest

from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import is_mixed
from runtime.core.model_set.model_set import Warmup
from runtime.core.model_set.warming import PROBE_TOKENS, PROBES
from tests.cluster import release_of
from tests.ray.conftest import scripted


async def _swaps_under_load(interlock, write_set, versions):
    """Swap through ``versions`` under load; return the records and each status after its cutover."""
    plan = Plan(interlock.url, "support-agent", ["my bill", "a bug"], rate=8, max_tokens=30, seed=7)
    load = LoadGenerator(plan)
    offered = asyncio.create_task(load.run())
    statuses = []
    for version in versions:
        path = write_set(f"v{version}", scripted(version))
        statuses.append(await asyncio.to_thread(interlock.swap_to, path))
    load.stop()
    await offered
    return load.records, statuses


# Ten swaps under load with two gateways: nothing fails, nothing mixes, every token is accounted for,
# and nothing is left over.
@pytest.mark.timeout(300)
async def test_ten_swaps_under_load(interlock, write_set):
    before = interlock.metered()
    records, statuses = await _swaps_under_load(interlock, write_set, range(1, 11))
    known = {r["number"]: r for status in statuses for r in status["releases"]}
    assert [record.error for record in records if record.error] == []
    assert sum(is_mixed(record, {"releases": list(known.values())}) for record in records) == 0
    assert len({record.release for record in records}) >= 10
    live = statuses[-1]["live"]
    status = interlock.until(lambda s: all(r["state"] in ("retired", "live") for r in s["releases"]))
    assert sum(gateway["leases"] for gateway in status["gateways"]) == 0
    assert {e["digest"] for e in status["engines"]} == {
        engine["digest"] for engine in release_of(status, live)["engines"].values()
    }
    client = sum(record.prompt_tokens + record.completion_tokens for record in records)
    assert interlock.metered() - before == client
    assert len(interlock.status()["gateways"]) == 2


# The same file deployed twice changes nothing: no release, no journal entry, no replica restarted.
def test_deploying_the_same_file_twice_changes_nothing(interlock, write_set):
    path = write_set("same", scripted(20))
    interlock.swap_to(path)
    before = interlock.until(lambda s: all(r["state"] in ("retired", "live") for r in s["releases"]))
    config = interlock.deploy_by_command(path)
    assert interlock.run("wait", "--config", str(config), "--timeout", "20").returncode == 0
    assert interlock.chat().status_code == 200
    after = interlock.status()
    assert after["revision"] == before["revision"]
    assert [r["entered"] for r in after["releases"]] == [r["entered"] for r in before["releases"]]
    assert {g["id"] for g in after["gateways"]} == {g["id"] for g in before["gateways"]}


# A broken file leaves the live release serving; the status and `wait` name file, key and nearest key.
def test_a_broken_file_costs_nothing(interlock, write_set):
    live = interlock.status()["live"]
    path = write_set("broken", scripted(21, inter_tokn="1ms"))
    done = interlock.deploy_and_wait(path, 30)
    assert done.returncode == 1
    flat = " ".join(done.stderr.split())
    assert "engines.writer.inter_tokn" in flat
    assert "did you mean 'inter_token'?" in flat
    status = interlock.status()
    assert status["live"] == live
    assert status["wanted"]["outcome"] == "failed"
    assert str(path) in status["wanted"]["reason"]
    assert interlock.chat().status_code == 200


# An engine that does not come up fails the candidate with its reason; what it had loaded is freed.
def test_an_engine_that_fails_to_load_is_freed(interlock, write_set):
    before = interlock.status()
    done = interlock.deploy_and_wait(write_set("unloadable", scripted(22, fail="load")), 90)
    assert done.returncode == 1
    assert "the script says that loading fails" in done.stderr
    status = interlock.until(lambda s: len(s["engines"]) == len(before["engines"]))
    assert status["live"] == before["live"]
    assert interlock.chat().status_code == 200


# A warm-up that fails does the same, though all its engines had come up.
def test_a_failed_warm_up_is_freed(interlock, write_set):
    before = interlock.status()
    done = interlock.deploy_and_wait(write_set("unwarmable", scripted(23, fail="warm")), 90)
    assert done.returncode == 1
    assert "the script says that warming fails" in done.stderr
    status = interlock.until(lambda s: len(s["engines"]) == len(before["engines"]))
    assert status["live"] == before["live"]


# Every replica of an engine is warmed, alone and under several calls at once, before any request.
def test_every_replica_is_warmed(interlock, write_set):
    document = scripted(24, deployment_config={"num_replicas": 3})
    status = interlock.swap_to(write_set("replicas", document))
    heads = 3  # of the two choices, and of the one sample
    tokens = 30 * (1 + sum(Warmup().at_once)) + PROBES * PROBE_TOKENS + heads
    assert release_of(status, status["live"])["warmup"]["completion_tokens"] == 3 * tokens


def three_engines(prompt, editor):
    """A set whose answer is drafted by one engine and edited by another."""
    document = scripted(30)
    document["engines"]["editor"] = {"kind": "fake", "tokens": 5, "reply": editor}
    chain = document["chains"]["support-agent"]
    draft = {"id": "draft", "generate": {"engine": "writer", "prompt": prompt}}
    chain["steps"][1:] = [draft, {"id": "answer", "generate": {"engine": "editor", "prompt": "edit"}}]
    return document


def _engines(status):
    return release_of(status, status["live"])["engines"]


# A swap that changes nothing but a prompt loads nothing, and is live everywhere within three seconds.
def test_a_new_prompt_is_live_within_three_seconds(interlock, write_set):
    before = interlock.swap_to(write_set("prompt-1", three_engines("draft", "edited-")))
    path = write_set("prompt-2", three_engines("draft it well", "edited-"))
    asked = time.monotonic()
    after = interlock.swap_to(path)
    seconds = time.monotonic() - asked
    assert all(engine["reused"] for engine in _engines(after).values())
    assert {e["digest"] for e in after["engines"]} <= {e["digest"] for e in before["engines"]}
    assert seconds < 3.0


# A swap that changes one engine of three loads that one; the other two go on as they are.
def test_a_swap_of_one_engine_of_three_loads_one(interlock, write_set):
    before = interlock.swap_to(write_set("engine-1", three_engines("draft", "first-")))
    apps = interlock.engine_apps()
    after = interlock.swap_to(write_set("engine-2", three_engines("draft", "second-")))
    loaded = {name for name, engine in _engines(after).items() if not engine["reused"]}
    assert loaded == {"editor"}
    assert len(interlock.engine_apps() - apps) == 1
    kept = {name: engine["digest"] for name, engine in _engines(before).items() if name != "editor"}
    assert kept.items() <= {name: engine["digest"] for name, engine in _engines(after).items()}.items()


# An engine that Serve scales by load, and has scaled down since, is reused: a warm-up reaches what runs now.
@pytest.mark.timeout(300)
def test_a_scaled_down_engine_is_reused(interlock, write_set):
    scaling = {"min_replicas": 1, "initial_replicas": 2, "max_replicas": 2, "downscale_delay_s": 1.0}
    writer = {"deployment_config": {"autoscaling_config": {**scaling, "metrics_interval_s": 0.5}}}
    before = interlock.swap_to(write_set("scaled", scripted(40, **writer)))
    name = interlock.application(_engines(before)["writer"]["digest"])
    health = _until_replicas(interlock, name, 1)
    assert health["wanted"] == 1
    again = scripted(40, **writer)
    again["chains"]["support-agent"]["steps"][1]["generate"]["prompt"] = "another prompt"
    after = interlock.swap_to(write_set("scaled-again", again))
    assert _engines(after)["writer"] == {**_engines(before)["writer"], "reused": True}
    assert interlock.chat().status_code == 200


def _until_replicas(interlock, name, running, seconds=60):
    """Return what health says of a deployment once so many of its replicas run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tier = interlock.http.get("/admin/v1/health").json()["tiers"]["infrastructure"]
        known = {d["name"]: d for d in tier["numbers"].get("deployments", ())}
        if name in known and known[name]["running"] == known[name]["wanted"] == running:
            return known[name]
        time.sleep(0.5)
    raise AssertionError(f"it was not scaled to {running}: {known}")
