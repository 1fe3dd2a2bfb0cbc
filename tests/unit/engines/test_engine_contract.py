import pytest

from runtime.core.model_set.engines import FakeEngineSpec
from runtime.engines import contract
from runtime.engines.fake import FakeEngine
from runtime.testing.virtual_time import LoopClock


async def _loaded():
    script = FakeEngineSpec(
        kind="fake", tokens=600, time_to_first_token="1ms", inter_token="1ms", context_length=4000
    )
    engine = FakeEngine(script, LoopClock())
    await engine.load()
    return engine


# The fake keeps every promise of a generating engine.
@pytest.mark.parametrize("check", contract.GENERATING, ids=lambda check: check.__name__)
async def test_generating(check):
    await check(await _loaded())


# The fake keeps every promise of an encoder.
@pytest.mark.parametrize("check", contract.ENCODING, ids=lambda check: check.__name__)
async def test_encoding(check):
    await check(await _loaded())


# The contract can fail: an engine that forgets to count is found out.
async def test_the_contract_notices_an_engine_that_does_not_count():
    engine = await _loaded()

    async def nothing():
        from runtime.core.metering.usage import Usage

        return Usage()

    engine.metered = nothing
    with pytest.raises(AssertionError, match="metered"):
        await contract.meters_what_answers_report(engine)
