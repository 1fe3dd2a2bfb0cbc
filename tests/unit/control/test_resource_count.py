"""What Ray hands out beside memory, and the main memory of engines that sleep, are in the plan."""

from dataclasses import replace

import pytest
from rich.console import Console

from runtime.cli.plan_view import render_plan
from runtime.core.model_set.memory import Device, EnginePlan, Footprint, Resources, SwapPlan, refusal
from runtime.core.swap.planning import plan
from runtime.core.swap.state import ControlState
from runtime.testing.cluster import FakeCluster
from runtime.testing.model_sets import content_of
from runtime.testing.virtual_time import LoopClock
from tests.unit.control.test_gpu_count import gpus, resident
from tests.unit.core.test_gpu_share import GIB, SHARED, content
from tests.unit.world import World, document

ON_CPU = {"accelerator_config": {"kind": "cpu"}}
PLENTY = [Device(id="node/memory", kind="cpu", total=640 * GIB, free=640 * GIB)]


def cpus_of(**options):
    (engine, *_) = [e for e in content(1, **options).model_set.engines.values() if e.kind == "vllm"]
    return engine.cpus


# Ray keeps a CPU for a replica's actor unless it says otherwise, and what the bundles of its group say.
@pytest.mark.parametrize(
    ("options", "cpus"),
    [
        (ON_CPU, 2),
        ({**ON_CPU, "placement_group_config": {"bundles": [{"CPU": 6}]}}, 7),
        ({}, 1),
        ({"placement_group_config": SHARED}, 1 + SHARED["bundles"][0].get("CPU", 0)),
        ({"deployment_config": {"ray_actor_options": {"num_cpus": 0}}}, 0),
    ],
)
def test_cpus_of_an_engine(options, cpus):
    assert cpus_of(**options) == cpus


# A set for whose replicas Ray has no CPUs is refused with the numbers: it would wait for its place in vain.
def test_cpus_are_counted():
    wanted = content(1, **ON_CPU, deployment_config={"num_replicas": 3})
    needed = sum(e.cpus * e.replicas for e in wanted.model_set.engines.values())
    enough = Resources(cpus=16, cpus_free=needed)
    assert plan(wanted, ControlState(), PLENTY, enough).fits
    short = plan(wanted, ControlState(), PLENTY, Resources(cpus=16, cpus_free=needed - 1))
    assert not short.fits
    said = f"CPUs that Ray counts: needs {needed:g}, has {needed - 1:g} free of 16, short of 1"
    assert said in refusal(short)
    assert "ray start --num-cpus" in refusal(short)
    console = Console(width=120, record=True)
    console.print(render_plan(short.as_json()))
    shown = f"CPUs that Ray counts: {needed:g} needed, {needed - 1:g} free of 16, short of 1"
    assert shown in console.export_text()


# GPUs that Ray has given to somebody else are not there, whoever that is.
def test_gpus_of_others():
    known = resident(content(1))
    alone = plan(content(2), known, gpus(2), Resources(cpus=99, cpus_free=99, gpus=2, gpus_free=1))
    assert (alone.gpus.others, alone.fits) == (0, True)
    shared = plan(content(2), known, gpus(2), Resources(cpus=99, cpus_free=99, gpus=2, gpus_free=0))
    assert (shared.gpus.others, shared.gpus.shortfall) == (1, 1)
    assert "2 of 2 held (writer of release 1 holds 1, others hold 1)" in refusal(shared)


# Weights of engines that sleep for a swap move to their node's main memory, which must have room for them.
@pytest.mark.parametrize(("main", "fits"), [(8, True), (2, False)])
def test_sleeping_weights(main, fits):
    sleeps = {"engine_kwargs": {"enable_sleep_mode": True}, "placement_group_config": SHARED}
    live = content(1, **sleeps)
    state = resident(live)
    writer = next(name for name, e in live.model_set.engines.items() if e.kind == "vllm")
    loaded = EnginePlan(
        name=writer,
        digest=live.engines[writer],
        kind="vllm",
        replicas=1,
        devices_per_replica=1,
        footprint=Footprint(weights=5 * GIB, kv_cache=GIB, overhead=0),
        placement=("node/gpu0",),
    )
    state = replace(state, releases={1: replace(state.releases[1], plan=SwapPlan(loaded=(loaded,)))})
    devices = [
        Device(id="node/gpu0", kind="gpu", total=80 * GIB, free=70 * GIB),
        Device(id="node/memory", kind="cpu", total=64 * GIB, free=main * GIB),
    ]
    planned = plan(content(2, placement_group_config=SHARED), state, devices)
    memory = next(device for device in planned.devices if device.device == "node/memory")
    assert memory.needed >= 5 * GIB
    assert planned.fits is fits, refusal(planned)


# In a swap, too, a set without CPUs is refused before anything is touched.
async def test_a_swap_without_cpus():
    cluster = FakeCluster(LoopClock())
    cluster.counted = Resources(cpus=2, cpus_free=2)
    async with World(cluster=cluster) as world:
        declared = document(1, writer={"deployment_config": {"ray_actor_options": {"num_cpus": 4}}})
        world.want(content_of(declared))
        await world.until(lambda s: s.releases.get(1) and s.releases[1].reason is not None)
        assert "CPUs that Ray counts: needs 4, has 2 free of 2, short of 2" in world.state.releases[1].reason
        assert cluster.done.created == []
