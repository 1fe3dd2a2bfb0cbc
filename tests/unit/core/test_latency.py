"""Where a request's time goes: the parts add up, and each is named."""

import asyncio
import contextlib
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.metering.latency import Pace, latency_of
from runtime.core.metering.usage import HopRecord as Hop
from runtime.core.metering.usage import Usage
from runtime.testing.model_sets import content_of
from tests.unit.api.test_api import JSON, app_of, events, post
from tests.unit.world import World, document

STEPS = ["first", "second", "third", "fourth", "fifth"]


def five_hops(**chain):
    """A chain of five generating steps, each of which takes its engine 500 ms."""
    declared = document(1, writer={"load": "10ms", "time_to_first_token": "500ms", "tokens": 1})
    steps = [{"id": step, "generate": {"engine": "writer"}} for step in STEPS]
    declared["chains"]["agent"] |= {"steps": steps, "answer": STEPS[-1], **chain}
    return declared


@contextlib.asynccontextmanager
async def serving(declared):
    """A world in which ``declared`` is live, and an HTTP client of its gateway."""
    async with World(gateways=1) as world:
        world.want(content_of(declared))
        await world.until_live(content_of(declared))
        transport = httpx.ASGITransport(app=app_of(world), client=("127.0.0.1", 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield world, client


def hurry(world, deadline):
    """Give the live release's chain a deadline that its warm-up would not have kept."""
    routing = world.gateways[0].follower.routing
    routed = routing.live.routed
    chains = {name: c.model_copy(update={"deadline": deadline}) for name, c in routed.chains.items()}
    routing.hold(replace(routing.live, routed=replace(routed, chains=chains)))


def parts(latency):
    return [
        latency["admission_ms"],
        *latency["steps_ms"].values(),
        latency["gaps_ms"],
        latency["tail_ms"],
    ]


def hop(step, start_ms, duration_ms):
    return Hop(step, "e", Usage(), 0.0, 0.0, duration_ms, start_ms)


spans = st.floats(0.0, 1e6)


# Whatever was measured, the parts add up to the total: admission, hops, gaps between them, tail.
@given(spans, st.lists(st.tuples(spans, spans), max_size=6), spans)
def test_parts_add_up(begun, measured, tail):
    at, hops = begun, []
    for gap, duration in measured:
        hops.append(hop(f"s{len(hops)}", at + gap, duration))
        at += gap + duration
    latency = latency_of(hops, begun, at + tail)
    assert latency.gaps_ms == pytest.approx(sum(gap for gap, _ in measured), abs=1e-3)
    assert latency.tail_ms == pytest.approx(tail, abs=1e-3)
    assert list(latency.steps_ms) == [hop.step for hop in hops]
    total = latency.admission_ms + sum(latency.steps_ms.values()) + latency.gaps_ms + latency.tail_ms
    assert total == pytest.approx(latency.total_ms, abs=1e-3)


# Of hops that ran beside each other the one counts that was waited for; nothing is negative, and it adds up.
@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=6), spans)
def test_hops_beside_each_other(measured, tail):
    hops = [hop(f"s{n}", start, duration) for n, (start, duration) in enumerate(measured)]
    end = max(one.start_ms + one.duration_ms for one in hops)
    latency = latency_of(hops, 0.0, end + tail)
    assert latency.tail_ms == pytest.approx(tail, abs=1e-3)
    assert latency.gaps_ms >= -0.01
    total = sum(latency.steps_ms.values()) + latency.gaps_ms + latency.tail_ms
    assert total == pytest.approx(latency.total_ms, abs=0.01)


# A step that is called again counts each time.
def test_a_step_that_comes_twice():
    latency = latency_of([hop("a", 0.0, 5.0), hop("b", 5.0, 2.0), hop("a", 7.0, 4.0)], 0.0, 12.0)
    assert (latency.steps_ms, latency.gaps_ms, latency.tail_ms) == ({"a": 9.0, "b": 2.0}, 0.0, 1.0)


# A request that ends before its first hop has spent its time in admission and tail alone.
def test_no_hops():
    latency = latency_of([], 3.0, 10.0)
    assert (latency.admission_ms, latency.steps_ms, latency.gaps_ms, latency.tail_ms) == (3.0, {}, 0.0, 7.0)


# Inter-token time is between tokens alone: chunks that bring none count neither as arrival nor as pause.
def test_pace():
    pace = Pace()
    for at, tokens in ((1.0, 0), (1.1, 1), (1.2, 2), (1.5, 4), (9.9, 4)):
        pace.arrive(at, tokens)
    assert pace.generation_ms == pytest.approx(400.0)
    assert pace.mean_ms == pytest.approx(400.0 / 3)
    assert pace.max_ms == pytest.approx(300.0)


# Where all tokens came at once, or none, there is no inter-token time.
@pytest.mark.parametrize("arrivals", [[], [(1.0, 0)], [(1.0, 7)]])
def test_no_pace(arrivals):
    pace = Pace()
    for at, tokens in arrivals:
        pace.arrive(at, tokens)
    assert (pace.generation_ms, pace.mean_ms, pace.max_ms) == (0.0, None, None)


# Five hops of 500 ms are 2.5 s: each step is named with its own, and the parts add up, streamed or not.
@pytest.mark.parametrize("stream", [False, True])
async def test_five_hops(stream):
    async with serving(five_hops()) as (_, client):
        asked = asyncio.get_running_loop().time()
        answer = await post(client, stream=stream)
        took = (asyncio.get_running_loop().time() - asked) * 1000.0
        told = (events(answer)[-1] if stream else answer.json())["interlock"]
        assert told["latency"]["total_ms"] == pytest.approx(2500.0) == took
        assert told["latency"]["steps_ms"] == pytest.approx(dict.fromkeys(STEPS, 500.0))
        assert sum(parts(told["latency"])) == pytest.approx(told["latency"]["total_ms"], abs=0.01)
        starts = [hop["start_ms"] for hop in told["hops"]]
        assert starts == pytest.approx([0.0, 500.0, 1000.0, 1500.0, 2000.0], abs=0.01)


class BusyClock:
    """A clock of a gateway that works for a quarter of a millisecond each time it looks at it."""

    def __init__(self):
        self._worked = 0.0

    def now(self):
        self._worked += 0.00025
        return asyncio.get_running_loop().time() + self._worked

    def wall(self):
        return 0.0


# Time that the gateway itself takes, between hops and after the last, is told and not lost.
async def test_own_work_is_told():
    async with serving(five_hops()) as (world, client):
        clock = world.gateways[0].admission._clock = BusyClock()
        asked = clock.now()
        latency = (await post(client)).json()["interlock"]["latency"]
        took = (clock.now() - asked) * 1000.0
        assert sum(parts(latency)) == pytest.approx(latency["total_ms"], abs=0.01)
        assert latency["total_ms"] == pytest.approx(took, abs=0.51)
        assert min(parts(latency)) > 0.0


# A stream's hop tells how its tokens came; one that came whole has nothing to tell.
async def test_inter_token_times():
    async with serving(document(1)) as (_, client):
        triage, answer = events(await post(client, stream=True))[-1]["interlock"]["hops"]
        assert answer["generation_ms"] == pytest.approx(19 * 20.0)
        assert answer["inter_token_ms"] == answer["inter_token_max_ms"] == pytest.approx(20.0)
        assert (triage["inter_token_ms"], triage["inter_token_max_ms"]) == (None, None)
        whole = (await post(client)).json()["interlock"]["hops"][1]
        assert (whole["generation_ms"], whole["inter_token_ms"]) == (0.0, None)


# What a request waits before its chain starts is admission's: here for models that are swapped.
async def test_admission():
    async with serving(five_hops()) as (world, client):
        routing = world.gateways[0].follower.routing
        routing.install(routing.live.routed, paused=True)
        asking = asyncio.create_task(post(client))
        await asyncio.sleep(0.3)
        routing.install(routing.live.routed)
        latency = (await asking).json()["interlock"]["latency"]
        assert latency["admission_ms"] == pytest.approx(300.0)
        assert latency["total_ms"] == pytest.approx(2800.0)


# The time that a client takes to send its body belongs to admission, too.
async def test_arrival_is_before_the_body():
    async def slowly():
        yield b'{"model": "agent", "messages": '
        await asyncio.sleep(0.2)
        yield b'[{"role": "user", "content": "my bill"}]}'

    async with serving(five_hops()) as (_, client):
        answer = await client.post("/v1/chat/completions", content=slowly(), headers=JSON)
        assert answer.json()["interlock"]["latency"]["admission_ms"] == pytest.approx(200.0)
