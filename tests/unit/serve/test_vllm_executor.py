"""Where vLLM's worker runs on a CPU."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from runtime.core.model_set.engines import VllmEngineSpec
from runtime.core.model_set.llm_config import VLLM_WORKER_IN_CORE, llm_config_fields
from runtime.serve.hosts.vllm import executor as vllm_executor


@pytest.fixture
def platform(monkeypatch):
    """vLLM's CPU platform, which has each worker in a process of its own, in this process's vLLM."""

    class CpuPlatform:
        @classmethod
        def check_and_update_config(cls, config):
            config.parallel_config.distributed_executor_backend = "mp"

    names = ("vllm", "vllm.platforms", "vllm.platforms.cpu")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vllm"].envs = SimpleNamespace(VLLM_CPU_OMP_THREADS_BIND="nobind")
    sys.modules["vllm.platforms.cpu"].CpuPlatform = CpuPlatform
    monkeypatch.setenv(VLLM_WORKER_IN_CORE, "1")
    return CpuPlatform


def backend_of(platform, workers=1):
    parallel = SimpleNamespace(world_size=workers, distributed_executor_backend=None)
    platform.check_and_update_config(SimpleNamespace(parallel_config=parallel))
    return parallel.distributed_executor_backend


# One worker whose threads are not bound to cores runs in its core's process, several do not.
@pytest.mark.parametrize(("workers", "backend"), [(1, "uni"), (2, "mp")])
def test_one_worker_runs_in_the_core(platform, workers, backend):
    vllm_executor.attach()
    assert backend_of(platform, workers) == backend


# Where vLLM binds threads to cores, which it can do in another process only, the worker stays there.
def test_bound_threads_need_their_process(platform):
    sys.modules["vllm"].envs.VLLM_CPU_OMP_THREADS_BIND = "auto"
    vllm_executor.attach()
    assert backend_of(platform) == "mp"


# An engine that did not ask for it, on a GPU or another's, is as vLLM has it.
def test_nobody_else(platform, monkeypatch):
    monkeypatch.delenv(VLLM_WORKER_IN_CORE)
    vllm_executor.attach()
    assert backend_of(platform) == "mp"


# Engines on a CPU ask for it unless their set says otherwise; those on a GPU do not.
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"accelerator_config": {"kind": "cpu"}}, "1"),
        (
            {"accelerator_config": {"kind": "cpu"}, "runtime_env": {"env_vars": {VLLM_WORKER_IN_CORE: "0"}}},
            "0",
        ),
        ({}, None),
    ],
)
def test_engines_on_a_cpu_ask_for_it(config, told):
    spec = VllmEngineSpec.model_validate(
        {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}, **config}}
    )
    fields = llm_config_fields(spec, None, {})
    assert fields.get("runtime_env", {}).get("env_vars", {}).get(VLLM_WORKER_IN_CORE) == told
