"""Channels to the replicas of a real deployment: Serve says where they are, and when they go."""

import asyncio

import pytest

from runtime.core.model_set.engines import FakeEngineSpec
from runtime.engines import contract

ASK = {"messages": [{"role": "user", "content": "my bill"}], "stream": True}


@pytest.fixture
def deployed(interlock, driver):
    """Deploy a scripted engine as often as a test likes; return its handle."""
    from ray import serve

    from runtime.serve.hosts import fake as fake_engine
    from tests.owned_engine import OwnedEngine

    timing = {"time_to_first_token": "1ms", "inter_token": "1ms", "context_length": 4000, "tokens": 600}

    made = []

    def deploy(script=timing, **deployment_config):
        engine = FakeEngineSpec(kind="fake", **script, deployment_config=deployment_config)
        made.append(OwnedEngine(serve.run(fake_engine.build(engine), name="channels", route_prefix=None)))
        return made[-1]

    yield deploy
    # A handle that is left open pushes metrics on: after the cluster's end to one that it starts itself.
    for handle in made:
        asyncio.run(handle.close())
    serve.delete("channels")


async def opened(handle):
    from runtime.serve.cluster.direct import DirectEngine

    engine = DirectEngine(handle)
    await engine.open()
    return engine


class Whole:
    """A direct engine, and what its owner does over the handle."""

    def __init__(self, engine, handle):
        self._engine, self._handle = engine, handle

    def __getattr__(self, name):
        return getattr(self._engine if hasattr(self._engine, name) else self._handle, name)


# Past Serve's handle, too, a scripted engine in a replica keeps every promise of an engine.
async def test_contract(deployed):
    handle = deployed()
    engine = await opened(handle)
    assert len(engine._channels) == 1
    for check in (*contract.GENERATING, *contract.ENCODING):
        await check(Whole(engine, handle))
    await engine.close()


async def read(answer):
    return [chunk async for chunks in answer for chunk in chunks]


# A replica that Serve stops, because there shall be fewer, first ends the calls that Serve does not see.
async def test_a_replica_that_serve_stops(deployed):
    slow = {"tokens": 60, "inter_token": "130ms"}
    engine = await opened(deployed(slow, num_replicas=2))
    answers = []
    for _ in range(4):
        answers.append(engine.generate(ASK))
        await anext(answers[-1])
    assert sorted(channel.in_flight for channel in engine._channels.values()) == [2, 2]
    reading = [asyncio.create_task(read(answer)) for answer in answers]
    await asyncio.to_thread(deployed, slow, num_replicas=1)
    assert [len(chunks) for chunks in await asyncio.gather(*reading)] == [59] * 4
    async with asyncio.timeout(20):
        while len(engine._channels) > 1:
            await asyncio.sleep(0.05)
    assert len(await read(engine.generate(ASK))) == 60
    await engine.close()


# Whom Serve scales by its load is called through Serve, which counts the load there.
async def test_autoscaling(deployed):
    handle = deployed(autoscaling_config={"min_replicas": 1, "max_replicas": 2})
    assert await handle.addresses() == [None]
    engine = await opened(handle)
    assert len(await read(engine.generate({**ASK, "max_tokens": 3}))) == 3
    await engine.close()
