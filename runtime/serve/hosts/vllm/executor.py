"""How vLLM runs its worker on a CPU: in the engine core's own process.

vLLM gives each worker a process there, to bind OpenMP's threads to cores before they start. The engine core
hands it each step through shared memory and spins until it answers: one core of two did nothing else. And
the worker is one more process that imports vLLM, which takes a load longer than its weights. Where threads
are not bound anyway (``VLLM_CPU_OMP_THREADS_BIND: nobind``) and there is one worker, it needs no process.

vLLM calls ``attach`` as a plugin (``pyproject.toml``) in each of its processes, wherever it runs. It does
nothing unless the engine's environment asks for it, which ``core.model_set.llm_config`` makes it do on a CPU.
"""

from __future__ import annotations

import logging
from typing import Any

from runtime.settings import vllm_worker_in_core

_log = logging.getLogger(__name__)

_OWN_PROCESS, _IN_CORE = "mp", "uni"
"""vLLM's words for the two, as ``distributed_executor_backend``."""


def attach() -> None:
    """Have engines of this process run their worker in their core, if its environment asks for it."""
    if not vllm_worker_in_core():
        return
    from vllm import envs  # noqa: PLC0415 - vLLM's processes have it
    from vllm.platforms.cpu import CpuPlatform  # noqa: PLC0415

    if envs.VLLM_CPU_OMP_THREADS_BIND != "nobind":
        _log.info("vLLM binds threads to cores, which it can do in a process of its own only")
        return
    check = CpuPlatform.check_and_update_config

    def checked(_: Any, config: Any) -> None:
        check(config)
        parallel = config.parallel_config
        if parallel.world_size == 1 and parallel.distributed_executor_backend == _OWN_PROCESS:
            parallel.distributed_executor_backend = _IN_CORE

    # It is asked last, after ray.serve.llm has chosen and vLLM has changed that.
    CpuPlatform.check_and_update_config = classmethod(checked)
