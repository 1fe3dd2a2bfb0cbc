"""Progress that a person can follow: what comes up, how far it is and for how long, what is waited for."""

import asyncio
import logging
import re
from dataclasses import replace

import pytest
from rich.console import Console

from runtime.cli.status_view import render
from runtime.control.waits import AGAIN_SECONDS, WaitLog
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.usage import Usage
from runtime.core.requests.ask import Ask
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.phase import EnginePhase, Stage, furthest_behind
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.routes import Acknowledgement, GatewayReport
from runtime.core.swap.state import (
    Change,
    ControlState,
    EffectProgress,
    EngineRecord,
    EngineState,
    Release,
)
from runtime.core.views.progress import expected_state
from runtime.core.views.status import status
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from tests.unit.control.test_room import ONE_GPU, sized
from tests.unit.world import World, content

STAGES = (
    Stage(EnginePhase.PLACING),
    Stage(EnginePhase.FETCHING),
    Stage(EnginePhase.LOADING),
    Stage(EnginePhase.LOADING, 50),
    Stage(EnginePhase.COMPILING),
)
SAID = ["placing", "fetching weights", "loading weights", "loading weights 50 %", "compiling"]


def staged():
    """A world whose engines go through all stages, a fifth of their load in each."""
    return World(cluster=FakeCluster(LoopClock(), stages=STAGES))


def engine_of(state, digest):
    """What the status shows of an engine; nothing before it is known."""
    return next((shown for shown in status(state, {}).engines if shown.digest == digest), None)


async def followed(world, digest):
    """Everything different that is shown of an engine until it is loaded, with the time it was first seen."""
    seen = []
    while (shown := engine_of(world.state, digest)) is None or shown.state != "loaded":
        if shown is not None and shown.progress is not None and shown not in [known for _, known in seen]:
            seen.append((world.clock.wall(), shown))
        await asyncio.sleep(0.05)
    return seen


def shown_on_terminal(state, monkeypatch, wall=1000.0):
    monkeypatch.setattr("runtime.cli.status_view.time.time", lambda: wall)
    console = Console(width=250)
    with console.capture() as captured:
        console.print(render(status(state, {})))
    return captured.get()


# An engine that comes up is shown in each of its phases, in order, with since when and for how long it
# should take; nothing is expected of the first one, and the second should take as long as that did.
async def test_phases_are_shown_in_order():
    async with staged() as world:
        expected = []
        for version, changes in ((1, {}), (2, {"load": "30s"})):
            wanted, begun = content(version, writer=changes), world.clock.wall()
            world.want(wanted)
            seen = await followed(world, wanted.engines["writer"])
            assert [s.progress for _, s in seen] == [f"{said}, 0 of 1 replicas run" for said in SAID]
            assert [s.phase for _, s in seen] == [stage.phase for stage in STAGES]
            assert {round(s.since - begun, 1) for _, s in seen} == {0.0}
            step = 4 if version == 1 else 6
            assert [at - begun for at, _ in seen] == pytest.approx([n * step for n in range(5)], abs=0.4)
            expected += [s.expected_s for _, s in seen]
            await world.until_live(wanted)
        assert expected[:5] == [None] * 5
        assert expected[5:] == pytest.approx([20] * 5, abs=0.5)


# The log says each phase once, with the seconds that have passed and the seconds that it took last.
async def test_phases_are_logged_once(caplog):
    caplog.set_level(logging.INFO, "runtime.control")
    async with staged() as world:
        await _live(world, content(1))
        caplog.clear()
        second = content(2)
        await _live(world, second)
        name = f"engine {second.engines['writer'][:12]}"
        lines = [line for line in caplog.messages if line.startswith(name)]
        assert lines == [
            *(f"{name}: {SAID[n]}, 0 of 1 replicas run, {4 * n} s of about 20 s" for n in range(5)),
            f"{name}: running, 1 of 1 replicas run, 20 s of about 20 s",
        ]


async def _live(world, wanted):
    world.want(wanted)
    await world.until_live(wanted)


# The log says each step of a release, how long the one before took and how long it took last time, and
# what the release waits for.
async def test_steps_of_a_release_are_logged(caplog):
    caplog.set_level(logging.INFO, "runtime.control")
    async with staged() as world:
        await _live(world, content(1))
        await world.until(lambda s: s.releases[1].state is ReleaseState.LIVE)
        lease = world.gateways[1].follower.routing.lease(Ask("agent"))
        caplog.clear()
        await _live(world, content(2))
        await asyncio.sleep(41)
        lease.close()
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)
        text = "\n".join(caplog.messages)
        for line in (
            "release 2 from set.yaml: pending",
            r"release 2: warming, after 20 s loading",
            r"release 2: verifying, after (\d+) s of about \1 s warming",
            r"release 2 waits for: .*1 of 1; 0 s of about \d+ s",
            r"release 1: standby, after 41 s draining",
            r"release 2 waits for: 1 of 2 engines to load; 0 s of about 20 s",
            r"release 1 waits for: draining: 1 lease, oldest \d+ s",
        ):
            assert re.search(line, text), line


# While only the numbers of a reason change, the log says it again every ten seconds, and a new one at once.
async def test_waiting_is_not_logged_at_every_report(caplog):
    caplog.set_level(logging.INFO, "runtime.control")
    log = WaitLog(LoopClock())
    for second in range(31):
        log.log(state_with(ReleaseState.DRAINING, leases=3, oldest=float(second)))
        await asyncio.sleep(1)
    log.log(state_with(ReleaseState.DRAINING))
    oldest = [f"release 2 waits for: draining: 3 leases, oldest {n} s" for n in (0, 10, 20, 30)]
    assert caplog.messages == [*oldest, "release 2 waits for: draining: its engines to be idle"]
    assert AGAIN_SECONDS == 10


# How far a load was is forgotten when it is over, however it ended.
@pytest.mark.parametrize(
    "writer", [{}, {"fail": "load"}, {"load": "1h"}], ids=["loaded", "failed", "aborted"]
)
async def test_progress_ends_with_the_load(writer):
    async with staged() as world:
        wanted = content(1, writer=writer)
        world.want(wanted)
        await world.until(lambda s: f"engine {wanted.engines['writer']}" in s.progress)
        other = content(1, writer={"reply": "another"})
        if writer.get("load"):
            world.want(other)
        await world.until(lambda s: s.releases[1].state in (ReleaseState.LIVE, ReleaseState.RETIRED))
        assert f"engine {wanted.engines['writer']}" not in world.state.progress


# An engine that goes says nothing of the load that it was in.
def test_progress_ends_when_the_engine_goes():
    state = state_with(ReleaseState.RETIRED, engines=EngineState.ABSENT)
    digest = next(iter(state.engines))
    told = ev.Progressed(at=1.0, subject=f"engine {digest}", text="compiling", since=0.0)
    loading = fold(state, told)
    assert loading.progress[f"engine {digest}"].text == "compiling"
    assert fold(loading, ev.EngineReleased(at=2.0, engine=digest)).progress == {}


# Of several replicas the one that is furthest behind is shown; one of which nothing was heard is being
# placed; what a replica said that died while it came up does not count once another has taken its place.
@pytest.mark.parametrize(
    ("heard", "ready", "target", "stage"),
    [
        ([], 0, 1, "placing"),
        (["loading"], 0, 1, "loading"),
        (["loading", "compiling"], 0, 2, "loading"),
        (["compiling", "loading"], 0, 2, "loading"),
        (["compiling"], 0, 2, "placing"),
        (["checking", "loading"], 1, 2, "loading"),
        (["checking"], 1, 2, "placing"),
        (["checking", "loading"], 0, 2, "loading"),
        (["checking"], 0, 1, "checking"),
        (["loading", "starting"], 0, 1, "starting"),
        (["starting", "compiling"], 0, 1, "compiling"),
        (["checking"], 1, 1, "running"),
        (["loading"], 2, 1, "running"),
    ],
)
def test_furthest_behind(heard, ready, target, stage):
    stages = [Stage(EnginePhase(phase)) for phase in heard]
    assert furthest_behind(stages, ready, target).phase == stage


# Within a phase the smaller percentage is further behind.
def test_smaller_percentage_is_further_behind():
    stages = [Stage(EnginePhase.LOADING, 70), Stage(EnginePhase.LOADING, 50)]
    assert str(furthest_behind(stages, 0, 2)) == "loading weights 50 %"


# -- what is expected of a release ----------------------------------------------------------------


def state_with(
    state, *, engines=EngineState.LOADED, leases=0, oldest=None, report=None, history=None, **changes
):
    """A state in which release 2 of two engines is wanted and in ``state``, and one gateway has reported."""
    set_ = content(2)
    release = Release(
        2, "set.yaml", state, content=set_, warm=True, proven=True, entered={state: 958.0}, demoted=3
    )
    told = GatewayReport(
        "gateway-0",
        1,
        version=5,
        leases={2: leases} if leases else {},
        oldest={2: oldest} if leases else {},
        **(report or {}),
    )
    records = {d: EngineRecord(d, engines, set_.spec_of(d)[0], loaded_by=2) for d in set_.engines.values()}
    whole = ControlState(
        revision=5,
        wanted=Change("c", "set.yaml", 2),
        releases={2: release},
        engines=records,
        gateways={"gateway-0": told},
        history=history or {},
    )
    lagging, paused, progress, acknowledged = (
        changes.pop("lagging", ()),
        changes.pop("paused", 0),
        changes.pop("told", None),
        changes.pop("acknowledged", Acknowledgement()),
    )
    whole = replace(whole, lagging=frozenset(lagging), paused=paused, acknowledgements={4: acknowledged})
    if progress:
        whole = replace(whole, progress={"release 2": EffectProgress(progress)})
    return replace(whole, releases={2: replace(release, **changes)})


# The prefix cache of a new release is judged by the first requests of all gateways.
def test_prefix_cache():
    counted = {name: (4, Usage(100, 9, cached)) for name, cached in (("a", 80), ("b", 20))}
    activity = {name: GatewayActivity(name, first_requests={2: first}) for name, first in counted.items()}
    (shown,) = status(state_with(ReleaseState.STANDBY), activity).releases
    assert (shown.prefix_cache.requests, shown.prefix_cache.hit_rate) == (8, 0.5)


# What a release should take is known once its engines have been loaded, all of them, under their names.
@pytest.mark.parametrize(
    ("state", "history", "expected"),
    [
        (ReleaseState.LOADING, {"load support/router": 2.0, "load support/writer": 40.0}, 40.0),
        (ReleaseState.LOADING, {"load support/writer": 40.0}, None),
        (ReleaseState.LOADING, {"load other/router": 2.0, "load support/writer": 40.0}, None),
        (ReleaseState.WARMING, {"warm support": 9.0}, 9.0),
        (ReleaseState.WARMING, {"warm other": 9.0}, None),
        (ReleaseState.STANDBY, {"warm support": 9.0}, None),
    ],
)
def test_expected_of_a_release(state, history, expected):
    whole = state_with(state, history=history, engines=EngineState.ABSENT)
    assert expected_state(whole, whole.releases[2]) == expected


# vLLM engines load one after the other, so what they take adds up; what another release loaded does not.
def test_engines_of_vllm_take_their_turns():
    history = {"load support/router": 50.0, "load support/writer": 40.0}
    whole = state_with(ReleaseState.LOADING, history=history, engines=EngineState.ABSENT)
    router, writer = (whole.engines[whole.releases[2].content.engines[n]] for n in ("router", "writer"))

    class OfVllm:
        kind = "vllm"

    both = {router.digest: replace(router, spec=OfVllm()), writer.digest: replace(writer, spec=OfVllm())}
    assert expected_state(replace(whole, engines=both), whole.releases[2]) == 90.0
    reused = {**both, router.digest: replace(router, loaded_by=1)}
    assert expected_state(replace(whole, engines=reused), whole.releases[2]) == 40.0


# -- why a release waits --------------------------------------------------------------------------

LIVE = {"was_live": True, "acknowledged": Acknowledgement(959.0, 959.0), "promoted": 4}
MANUAL = content(2, cutover="manual")


# The terminal says of every release what it waits for.
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (state_with(ReleaseState.PENDING), "its plan: what to load, and where"),
        (state_with(ReleaseState.LOADING, engines=EngineState.ABSENT), "2 of 2 engines to load"),
        (state_with(ReleaseState.LOADING, paused=4), "0 of 2 engines to load; new requests wait"),
        (
            state_with(ReleaseState.LOADING, paused=4, report={"waiting": 7}),
            "0 of 2 engines to load; 7 requests wait",
        ),
        (
            state_with(ReleaseState.WARMING, paused=4, report={"waiting": 1}, told="sample 1 of 2"),
            "sample 1 of 2; 1 request waits",
        ),
        (state_with(ReleaseState.WARMING), "warm-up"),
        (state_with(ReleaseState.VERIFYING), "gateways to prepare"),
        (state_with(ReleaseState.VERIFYING, report={"faults": {2: "no answer"}}), "no answer"),
        (state_with(ReleaseState.STANDBY, content=MANUAL), "held: interlock promote 2"),
        (
            state_with(ReleaseState.STANDBY, engines=EngineState.ASLEEP, was_live=True),
            "2 of 2 engines to be back",
        ),
        (
            state_with(ReleaseState.STANDBY, was_live=True, proven=False),
            "a probe of what its engines answer",
        ),
        (state_with(ReleaseState.LIVE, was_live=True), "gateways to acknowledge"),
        (state_with(ReleaseState.LIVE, lagging=["gateway-0"], **LIVE), "they did not follow: gateway-0"),
        (
            state_with(ReleaseState.LIVE, **LIVE),
            "",
        ),
        (
            state_with(ReleaseState.LIVE, engines=EngineState.WAKING, report={"waiting": 2}, **LIVE),
            "2 of 2 engines to be back; 2 requests wait",
        ),
        (
            state_with(ReleaseState.DRAINING, leases=3, oldest=41.3),
            "draining: 3 leases, oldest 41 s",
        ),
        (state_with(ReleaseState.DRAINING, leases=1, oldest=2.0), "draining: 1 lease, oldest 2 s"),
        (state_with(ReleaseState.DRAINING, demoted=6), "draining: gateways to follow"),
        (state_with(ReleaseState.DRAINING), "draining: its engines to be idle"),
        (state_with(ReleaseState.UNLOADING), "2 engines to unload"),
        (state_with(ReleaseState.FAILED, reason="out of memory\nwith a stack"), "out of memory"),
    ],
)
def test_reason_for_waiting(state, reason, monkeypatch):
    row = next(line for line in shown_on_terminal(state, monkeypatch).splitlines() if "│ 2 " in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[-1] == reason if "follow:" not in reason else cells[-1].endswith(reason)
    assert cells[3] == "42 s"
    assert "with a stack" not in row


# The terminal says how much of the expected time has passed, of a release and of an engine that comes up.
def test_elapsed_and_expected_on_the_terminal(monkeypatch):
    history = {"load support/router": 2.0, "load support/writer": 45.0}
    state = state_with(ReleaseState.LOADING, history=history, engines=EngineState.ABSENT)
    writer = state.releases[2].content.engines["writer"]
    stage = Stage(EnginePhase.COMPILING)
    told = EffectProgress("compiling, 0 of 1 replicas run", stage, since=970.0)
    shown = shown_on_terminal(replace(state, progress={f"engine {writer}": told}), monkeypatch)
    assert "│ 42 s of about 45 s │" in shown
    engine = next(line for line in shown.splitlines() if writer[:12] in line)
    assert "│ 30 s of about 45 s │ compiling, 0 of 1 replicas run │" in engine


# While a swap makes requests wait, the status says how many do, and nobody waits after it.
async def test_waiting_requests_are_counted():
    async with World(cluster=FakeCluster(LoopClock(), ONE_GPU)) as world:
        await _live(world, sized(1))
        world.want(sized(2, strategy="sleep_live", writer={"load": "5s"}))
        await world.until(lambda s: s.paused)
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(world.ask(n % 2)) for n in range(5)]
        await world.until(lambda s: s.waiting == 5, seconds=3)
        shown = status(world.state, {})
        assert shown.waiting == 5
        assert shown.releases[1].waits_for.endswith("; 5 requests wait")
        await asyncio.gather(*waiting)
        await world.until(lambda s: s.waiting == 0, seconds=3)
