"""One deadline for all hops: nothing works on for a request whose time is up."""

import asyncio
from dataclasses import replace

import pytest

from runtime.core.metering.usage import Usage
from runtime.engines import deadline
from runtime.engines.deadline import GRACE_SECONDS
from runtime.engines.port import WITHIN, Chunk, Classification
from runtime.engines.time_limit import TimeLimit
from runtime.errors import DeadlineExceeded
from tests.unit.api.test_api import post
from tests.unit.core.test_latency import STEPS, five_hops, hurry, serving
from tests.unit.world import document

CHOICES = {"input": "my bill", "choices": {"a": ["bill"], "b": ["bug"]}}
TALK = {"messages": [{"role": "user", "content": "my bill"}], "stream": True}


def engines(world):
    """Every engine that the world hosts."""
    return [replica for app in world.cluster.applications.values() for replica in app.replicas]


class Heard:
    """An engine's client that notes the bodies that it is sent."""

    def __init__(self, engine, bodies, after=lambda: None):
        self._engine = engine
        self._bodies = bodies
        self._after = after

    async def generate(self, body):
        self._bodies.append(body)
        answer = self._engine.generate(body)
        try:
            async for chunks in answer:
                yield chunks
        finally:
            await answer.aclose()

    async def classify(self, body):
        self._bodies.append(body)
        answer = await self._engine.classify(body)
        self._after()
        return answer

    async def spent(self, hop):
        return await self._engine.spent(hop)


async def drain(answer, chunks):
    async for arrived in answer:
        chunks += arrived


def overhear(world, after=lambda: None):
    """Return the bodies that the live release's engines are sent from now on."""
    routing, bodies = world.gateways[0].follower.routing, []
    clients = {name: Heard(client, bodies, after) for name, client in routing.live.clients.items()}
    routing.hold(replace(routing.live, clients=clients))
    return bodies


# In whatever hop, and wherever in it, the deadline passes: the engine's work has ended, not only the wait.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seconds", [0.002, 0.03, 0.2], ids=["route", "first token", "between tokens"])
async def test_work_is_cancelled_at_the_engine(seconds, stream):
    async with serving(document(1)) as (world, client):
        hurry(world, seconds)
        began = asyncio.get_running_loop().time()
        await post(client, stream=stream)
        assert asyncio.get_running_loop().time() - began == pytest.approx(seconds)
        assert all([await engine.idle() for engine in engines(world)])
        spent = await world.cluster.metered_ever()
        await asyncio.sleep(60)
        assert await world.cluster.metered_ever() == spent
        assert world.leases() == 0


# The deadline is the chain's: hops that each would keep it do not get it anew.
@pytest.mark.parametrize("stream", [False, True])
async def test_hops_share_one_deadline(stream):
    async with serving(five_hops()) as (world, client):
        hurry(world, 1.7)
        began = asyncio.get_running_loop().time()
        answer = await post(client, stream=stream)
        assert (answer.status_code, asyncio.get_running_loop().time() - began) == (504, pytest.approx(1.7))
        assert repr(STEPS[3]) in answer.json()["error"]["message"]
        assert all([await engine.idle() for engine in engines(world)])


# A call that is over leaves no timer behind: each would keep its request in memory until its deadline.
@pytest.mark.parametrize("model_set", [five_hops(), document(1)], ids=["generating", "with a route"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_timer_is_left(stream, model_set):
    async with serving(model_set) as (_, client):
        await post(client, stream=stream)
        timers = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
        assert not [
            timer for timer in timers if isinstance(getattr(timer._callback, "__self__", None), TimeLimit)
        ]


# Each hop tells its engine how much time is left, less with each hop; a client cannot set it.
async def test_engines_know_the_time_that_is_left():
    async with serving(five_hops()) as (world, client):
        bodies = overhear(world)
        await post(client)
        assert [body[WITHIN] for body in bodies] == pytest.approx([30.0, 29.5, 29.0, 28.5, 28.0])


# A route's engine is told, too.
async def test_a_route_knows_the_time_that_is_left():
    async with serving(document(1)) as (world, client):
        bodies = overhear(world)
        await post(client)
        assert [body[WITHIN] for body in bodies] == pytest.approx([30.0, 29.995])


# A hop that no time is left for is not begun.
async def test_no_time_no_hop():
    class Stalling:
        late = 0.0

        def now(self):
            return asyncio.get_running_loop().time() + self.late

        def wall(self):
            return 0.0

        def stall(self):
            self.late = 31.0

    async with serving(document(1)) as (world, client):
        clock = world.gateways[0].admission._clock = Stalling()
        bodies = overhear(world, clock.stall)
        assert (await post(client)).status_code == 504
        assert len(bodies) == 1


# Where a caller has died and ends nothing, the host of the engine ends the call, a little later.
async def test_the_host_ends_what_nobody_waits_for():
    async with serving(document(1)) as (world, _):
        clients = world.gateways[0].follower.routing.live.clients
        began, chunks = asyncio.get_running_loop().time(), []
        with pytest.raises(DeadlineExceeded):
            await drain(clients["writer"].generate({**TALK, WITHIN: 0.12}), chunks)
        took = asyncio.get_running_loop().time() - began
        assert (len(chunks), took) == (9, pytest.approx(0.12 + GRACE_SECONDS))
        assert all([await engine.idle() for engine in engines(world)])


# The same for a route.
async def test_the_host_ends_a_route():
    async with serving(document(1, router={"time_to_first_token": "9s"})) as (world, _):
        router = world.gateways[0].follower.routing.live.clients["router"]
        with pytest.raises(DeadlineExceeded):
            await router.classify({**CHOICES, WITHIN: 0.5})
        assert all([await engine.idle() for engine in engines(world)])


class Engine:
    """An engine that notes what it is given."""

    def __init__(self):
        self.bodies = []

    async def generate(self, body):
        self.bodies.append(body)
        yield [Chunk(b"", Usage(), 0.0)]

    async def classify(self, body):
        self.bodies.append(body)
        return Classification("a", {}, Usage(), 0.0)


# The engine itself, which knows OpenAI's fields alone, does not see the time; without one there is no limit.
async def test_the_host_takes_the_time_out():
    engine = Engine()
    assert [chunks async for chunks in deadline.generate(engine, {**TALK, WITHIN: 1.0})]
    await deadline.classify(engine, {**CHOICES, WITHIN: 1.0})
    await deadline.classify(engine, CHOICES)
    assert engine.bodies == [TALK, CHOICES, CHOICES]
