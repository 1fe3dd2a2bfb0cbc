import asyncio

import pytest

from runtime.core.model_set.engines import FakeEngineSpec
from runtime.engines import contract


@pytest.fixture(scope="session")
def engine(interlock, driver):
    """A scripted engine in a Serve replica, called over its handle."""
    from ray import serve

    from runtime.serve.hosts import fake as fake_engine
    from tests.owned_engine import OwnedEngine

    script = FakeEngineSpec(
        kind="fake", tokens=600, time_to_first_token="1ms", inter_token="1ms", context_length=4000
    )
    hosted = OwnedEngine(serve.run(fake_engine.build(script), name="contract", route_prefix=None))
    yield hosted
    asyncio.run(hosted.close())
    serve.delete("contract")


# A scripted engine keeps every promise of a generating engine across the wire, too.
@pytest.mark.parametrize("check", contract.GENERATING, ids=lambda check: check.__name__)
async def test_generating(engine, check):
    await check(engine)


# A scripted engine keeps every promise of an encoder across the wire, too.
@pytest.mark.parametrize("check", contract.ENCODING, ids=lambda check: check.__name__)
async def test_encoding(engine, check):
    await check(engine)
