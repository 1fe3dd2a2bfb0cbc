"""Whether Ray has a place for one set beside another, which is found out before anything is touched."""

import pytest
from rich.console import Console

from runtime.cli.plan_view import render_plan
from runtime.core.model_set.memory import Device, refusal
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.planning import plan
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState, EngineRecord, EngineState, Release
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from tests.unit.core.test_gpu_share import GIB, SHARED, content
from tests.unit.world import World, document


def gpus(count, free=80):
    return [Device(id=f"node/gpu{n}", kind="gpu", total=80 * GIB, free=free * GIB) for n in range(count)] + [
        Device(id="node/memory", kind="cpu", total=64 * GIB, free=64 * GIB)
    ]


def resident(*contents, states=(), engine_state=EngineState.LOADED):
    """The state in which ``contents`` are releases 1, 2, ...: the last one live, the others standbys."""
    states = states or [*[ReleaseState.STANDBY] * (len(contents) - 1), ReleaseState.LIVE]
    releases, engines = {}, {}
    for number, (held, state) in enumerate(zip(contents, states, strict=True), 1):
        releases[number] = Release(number, "set.yaml", state, content=held)
        for digest in held.engines.values():
            engines[digest] = EngineRecord(digest, engine_state, *held.spec_of(digest), loaded_by=number)
    return ControlState(releases=releases, engines=engines)


# A set is refused where Ray has no place for its engines, whatever memory is free; one that has is not.
@pytest.mark.parametrize(
    ("live", "candidate", "count", "shortfall"),
    [
        ({}, {}, 1, 1),
        ({}, {}, 2, 0),
        ({}, {"placement_group_config": SHARED}, 1, 0.45),
        ({"placement_group_config": SHARED}, {}, 1, 0.45),
        ({"placement_group_config": SHARED}, {"placement_group_config": SHARED}, 1, 0),
        ({"placement_group_config": SHARED}, {"placement_group_config": SHARED, "encoder_gpus": 0.1}, 1, 0),
        (
            {"placement_group_config": SHARED},
            {"placement_group_config": SHARED, "encoder_gpus": 0.2},
            1,
            0.1,
        ),
        ({"deployment_config": {"num_replicas": 2}}, {}, 2, 1),
        ({}, {"deployment_config": {"num_replicas": 2}}, 2, 1),
        ({"accelerator_config": {"kind": "cpu"}}, {}, 1, 0),
    ],
)
def test_gpus_are_counted_as_ray_does(live, candidate, count, shortfall):
    planned = plan(content(2, **candidate), resident(content(1, **live)), gpus(count))
    assert not any(device.shortfall for device in planned.devices)
    assert planned.gpus.shortfall == shortfall
    assert planned.fits is (shortfall == 0)
    assert (refusal(planned) is None) is planned.fits


# Who is refused for GPUs is told how many are needed and held, by what, and what helps and what does not.
def test_refusal_names_holders():
    planned = plan(content(2), resident(content(1)), gpus(1))
    assert refusal(planned) == (
        "it does not fit (beside): GPUs: needs 1, 1 of 1 held (writer of release 1 holds 1), short of 1. "
        "Nothing was touched; let the engines of both sets share GPUs (in llm_config: "
        "placement_group_config: {bundles: [{GPU: 0.45, CPU: 1}]}) or add GPUs; strategy: sleep_live does "
        "not help, for Ray keeps the GPUs of an engine that sleeps"
    )


# Where memory is short, too, both are told, and nobody is sent to a strategy that does not help.
def test_refusal_for_memory_and_gpus():
    reason = refusal(plan(content(2), resident(content(1)), gpus(1, free=2)))
    assert "node/gpu0: needs 2.5 GiB, has 2.0 GiB free" in reason
    assert "less kv_cache or fewer replicas; let the engines" in reason
    assert "declare strategy" not in reason


# Whoever is short only while an older release stays warm is told that waiting helps.
@pytest.mark.parametrize(("count", "helps"), [(2, True), (1, False)])
def test_rollback_window_holds_gpus(count, helps):
    planned = plan(content(3), resident(content(1), content(2)), gpus(count))
    assert planned.gpus.taken == 2
    assert ("wait until the rollback window of older releases is over" in refusal(planned)) is helps


# An engine that sleeps holds its GPUs as before.
def test_sleeping_engine_holds_its_gpus():
    assert not plan(content(2), resident(content(1), engine_state=EngineState.ASLEEP), gpus(1)).fits


# What goes anyway is not in the way: its GPUs are free before long.
@pytest.mark.parametrize("gone", [ReleaseState.FAILED, ReleaseState.UNLOADING])
def test_what_goes_is_not_counted(gone):
    state = resident(content(1), states=[gone], engine_state=EngineState.UNLOADING)
    assert plan(content(2), state, gpus(1)).gpus.held == ()


# An engine that goes and is to come again for the candidate is counted once.
def test_engine_that_comes_again_is_counted_once():
    again = content(1)
    state = resident(again, states=[ReleaseState.RETIRED], engine_state=EngineState.UNLOADING)
    state = fold(state, ev.Wanted(at=1.0, change="c", source="set.yaml", content=again))
    planned = plan(again, state, gpus(1))
    assert (planned.gpus.needed, planned.gpus.held, planned.fits) == (1, (), True)


# A set that loads nothing on a GPU needs none, even where more are held than there are.
def test_reused_engines_need_no_gpu():
    first = content(1)
    state = resident(first, content(2))
    assert plan(first, state, gpus(1)).fits


# Nothing is said of GPUs where there are none.
def test_no_gpus():
    memory = [device for device in gpus(1) if device.kind == "cpu"]
    planned = plan(content(1, accelerator_config={"kind": "cpu"}), ControlState(), memory)
    assert planned.gpus is None
    assert planned.as_json()["gpus"] is None
    assert "GPUs" not in shown(planned)


def shown(planned):
    """The plan as the command line shows it."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_plan(planned.as_json()))
    return capture.get()


# The plan shows who holds GPUs, and what is missing.
def test_plan_shows_gpus():
    text = shown(plan(content(2), resident(content(1)), gpus(1)))
    assert "GPUs: 1 needed of 1, held: 1 by writer of release 1, short of 1" in text


# The controller refuses what Ray could not place before anything is created.
async def test_nothing_is_touched():
    cluster = FakeCluster(LoopClock(), gpus(1))
    async with World(cluster=cluster) as world:
        world.want(content(1, encoder_gpus=2, writer=document(1)["engines"]["writer"]))
        await world.until(lambda s: s.releases.get(1) and s.releases[1].reason is not None)
        assert "GPUs: needs 2, there are 1, short of 1" in world.state.releases[1].reason
        assert cluster.done.created == []
