import pytest

from runtime.engines import contract


# vLLM keeps every promise that the fake keeps as a generating engine.
@pytest.mark.parametrize("check", contract.GENERATING, ids=lambda check: check.__name__)
async def test_vllm(engine_of, check):
    await check(engine_of("writer"))


# A transformers encoder keeps every promise that the fake keeps as an encoder.
@pytest.mark.parametrize("check", contract.ENCODING, ids=lambda check: check.__name__)
async def test_transformers(engine_of, check):
    await check(engine_of("router"))
