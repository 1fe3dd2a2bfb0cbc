"""How vLLM's processes wait for each other on a CPU."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from runtime.core.llm_config import VLLM_NAPS, llm_config_fields
from runtime.core.specs import VllmEngine
from runtime.serve import vllm_wait

MODULE = "vllm.distributed.device_communicators"


@pytest.fixture
def condition(monkeypatch):
    """What vLLM's processes wait by, where this process's vLLM keeps it; it notes when it is asked."""

    class SpinCondition:
        busy_loop_s = 1.0

        def __init__(self, last_read):
            self.last_read = last_read
            self.asked = []

        def wait(self, timeout_ms=None):
            self.asked.append(timeout_ms)

    broadcast = SimpleNamespace(SpinCondition=SpinCondition)
    parents = [MODULE.rsplit(".", depth)[0] for depth in (2, 1)]
    for name in (*parents, MODULE):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[MODULE].shm_broadcast = broadcast
    naps = []
    clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=naps.append)
    monkeypatch.setattr(vllm_wait, "time", clock)
    return broadcast, naps


# Who has just read naps, the longer the longer it waits; who has read nothing for long waits as vLLM does.
@pytest.mark.parametrize(
    ("last_read", "naps_taken", "asked"),
    [
        (100.0, [0.0001], []),
        (99.996, [pytest.approx(0.0002)], []),
        (99.5, [0.0005], []),
        (98.0, [], [250]),
    ],
)
def test_naps_where_vllm_spins(condition, monkeypatch, last_read, naps_taken, asked):
    broadcast, naps = condition
    monkeypatch.setenv(VLLM_NAPS, "1")
    vllm_wait.attach()
    waiting = broadcast.SpinCondition(last_read)
    waiting.wait(timeout_ms=250)
    assert (naps, waiting.asked) == (naps_taken, asked)


# An engine that did not ask for it, on a GPU or another's, waits as vLLM does.
def test_nobody_else_naps(condition, monkeypatch):
    broadcast, naps = condition
    monkeypatch.delenv(VLLM_NAPS, raising=False)
    vllm_wait.attach()
    waiting = broadcast.SpinCondition(99.5)
    waiting.wait()
    assert (naps, waiting.asked) == ([], [None])


# One that keeps what it goes by under other names waits as it does itself, and does not fail.
def test_other_names_are_left_alone(condition, monkeypatch):
    broadcast, naps = condition
    monkeypatch.setenv(VLLM_NAPS, "1")
    vllm_wait.attach()
    waiting = broadcast.SpinCondition(99.5)
    del waiting.last_read
    waiting.wait()
    assert (naps, waiting.asked) == ([], [None])


# A vLLM that waits otherwise is left as it is.
def test_another_vllm_is_left_alone(condition, monkeypatch):
    broadcast, _ = condition
    monkeypatch.setenv(VLLM_NAPS, "1")
    del broadcast.SpinCondition
    vllm_wait.attach()
    assert not vars(broadcast)


# Engines on a CPU ask for it unless their set says otherwise; those on a GPU do not.
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"accelerator_config": {"kind": "cpu"}}, "1"),
        ({"accelerator_config": {"kind": "cpu"}, "runtime_env": {"env_vars": {VLLM_NAPS: "0"}}}, "0"),
        ({}, None),
    ],
)
def test_engines_on_a_cpu_ask_for_it(config, told):
    spec = VllmEngine.model_validate(
        {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}, **config}}
    )
    fields = llm_config_fields(spec, None, {})
    assert fields.get("runtime_env", {}).get("env_vars", {}).get(VLLM_NAPS) == told
