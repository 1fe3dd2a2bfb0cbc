"""Counts outlast processes: whoever dies or leaves, a later answer shows no less."""

import asyncio

import pytest

from runtime.engines.fake import FakeEngine
from runtime.errors import EngineUnavailable
from tests.prometheus import fallen, samples_of, total_of
from tests.unit.observe.test_metrics import BODY, QUICK, answered, live, scrape
from tests.unit.world import content


# A gateway that is killed takes nothing along that was ever shown, and those that live count on.
async def test_a_gateway_dies():
    async with live() as world:
        for gateway in (0, 0, 1):
            await world.ask(gateway)
        shown = await scrape(world, 0)
        await world.lose(0)
        for wait in (0, 5, 40):
            await asyncio.sleep(wait)
            assert fallen(shown, await scrape(world, 1)) == {}
        assert "gateway-0" not in world.state.gateways
        await world.ask(1)
        assert answered(await scrape(world, 1)) == 4


# A gateway that leaves has told everything.
async def test_a_gateway_leaves():
    async with live() as world:
        await world.ask(0)
        await world.gateways[0].end()
        assert answered(await scrape(world, 1)) == 1


# A manager that is killed and starts again shows no less, and misses nothing that gateways have counted.
@pytest.mark.parametrize("idle", [True, False])
async def test_the_manager_dies(idle):
    async with live() as world:
        await world.ask(0)
        shown = await scrape(world, 1)
        await world.ask(0)
        await asyncio.sleep(1.5)  # the manager has heard of it, and nobody has seen it
        await world.stop_manager()
        if not idle:
            await world.ask(0)
        world.start_manager()
        await world.until(lambda s: s.live is not None)
        await asyncio.sleep(12)
        text = await scrape(world, 1)
        assert fallen(shown, text) == {}
        assert answered(text) == (2 if idle else 3)


# If the manager and a gateway die together, nothing that was shown goes backwards.
async def test_manager_and_gateway_die_together():
    async with live() as world:
        await world.ask(0)
        await world.ask(1)
        shown = await scrape(world, 0)
        await world.stop_manager()
        await world.lose(0)
        world.start_manager()
        await world.until(lambda s: s.live is not None)
        for wait in (1, 40):
            await asyncio.sleep(wait)
            assert fallen(shown, await scrape(world, 1)) == {}


# A gateway that was taken as gone, and comes back, is not counted twice; its manager may be a new one.
@pytest.mark.parametrize("restarts", [True, False])
async def test_a_gateway_comes_back(restarts):
    async with live() as world:
        await world.ask(0)
        await world.ask(1)
        await asyncio.sleep(2)
        assert answered(await scrape(world, 1)) == 2
        world.manager.lost.add("gateway-0")
        await asyncio.sleep(40)
        assert "gateway-0" not in world.state.gateways
        await scrape(world, 1)
        if restarts:
            await world.stop_manager()
            world.start_manager()
            await world.until(lambda s: s.live is not None)
            await asyncio.sleep(20)
            await scrape(world, 1)
        world.manager.lost.clear()
        await asyncio.sleep(12)
        assert answered(await scrape(world, 1)) == 2


# After a restart, a scrape that comes before all are heard forgets nobody who is only about to be.
@pytest.mark.simulation
@pytest.mark.parametrize("unheard", ["gateways", "replicas"])
async def test_a_scrape_right_after_a_restart(unheard, monkeypatch):
    many = 20
    wanted = content(1, writer=QUICK | {"deployment_config": {"num_replicas": many}})
    async with live(wanted, gateways=many) as world:
        for gateway in range(many):
            await world.ask(gateway)
        await asyncio.sleep(2)
        shown = await scrape(world)
        await world.stop_manager()
        world.start_manager()
        with monkeypatch.context() as patched:
            if unheard == "gateways":
                world.manager.lost.update(f"gateway-{n}" for n in range(1, many))
            else:
                await asyncio.sleep(20)
                patched.setattr(world.cluster, "metrics", refuse)
            await world.until(lambda s: s.live is not None)
            await scrape(world)
        world.manager.lost.clear()
        await asyncio.sleep(12)
        text = await scrape(world)
        assert answered(text) == answered(shown) == many
        assert total_of(text, "vllm:prompt_tokens_total") == total_of(shown, "vllm:prompt_tokens_total")


async def refuse(_engine):
    raise EngineUnavailable("not yet")


# An engine's replica that dies and is replaced, and an engine that is unloaded, take back no count.
async def test_engines_die():
    async with live(content(1, writer=QUICK, rollback_window="1s")) as world:
        await world.ask()
        shown = await scrape(world)
        engine = world.state.live.content.engines["writer"]
        app = world.cluster._app(engine)
        fresh = FakeEngine(app.replicas[0]._script, world.clock)
        fresh.loaded = True
        app.replicas[0] = fresh
        assert fallen(shown, await scrape(world)) == {}
        assert [chunk async for chunk in fresh.generate(BODY)]
        text = await scrape(world)
        told = total_of(text, "vllm:generation_tokens_total", engine=engine[:12])
        assert told == total_of(shown, "vllm:generation_tokens_total", engine=engine[:12]) + 6
        assert [chunk async for chunk in fresh.generate(BODY)]  # nobody has seen this when it is unloaded
        world.want(content(2, writer=QUICK))
        await world.until(lambda s: engine not in s.engines)
        text = await scrape(world)
        assert fallen(shown, text) == {}
        assert total_of(text, "vllm:generation_tokens_total", engine=engine[:12]) == told + 6
        gauges = [s for s in samples_of(text) if s[0] == "vllm:num_requests_running"]
        assert ("engine", engine[:12]) not in {label for _, labels in gauges for label in labels}


# An engine that does not answer keeps nobody waiting: what it told before is shown.
async def test_an_engine_that_hangs(monkeypatch):
    async with live() as world:
        await world.ask()
        shown = await scrape(world)

        async def hang(_engine):
            await asyncio.Event().wait()

        monkeypatch.setattr(world.cluster, "metrics", hang)
        begun = world.clock.now()
        assert fallen(shown, await scrape(world)) == {}
        assert world.clock.now() - begun < 3.0
