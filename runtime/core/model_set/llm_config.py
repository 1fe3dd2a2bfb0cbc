"""The ``LLMConfig`` of an engine: what the set declares, and what Interlock adds to it.

What the set declares always wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.core.model_set.engines import VllmEngineSpec

VLLM_WORKER_IN_CORE = "INTERLOCK_VLLM_WORKER_IN_CORE"
"""Variable by which an engine asks ``serve.hosts.vllm.executor`` to have no process for its worker alone."""


def llm_config_fields(
    spec: VllmEngineSpec, location: str | None, inherited: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of ``LLMConfig``. The spec stays as it is.

    ``location`` is where the engine's weights were found, ``inherited`` the runtime environment of the
    process that makes the engine's application.
    """
    fields = spec.llm_config.model_dump(exclude_none=True)
    if location is not None:
        fields["model_loading_config"]["model_source"] = location
    fields["deployment_config"] = _deployment(fields["deployment_config"])
    # The first token at once: ray.serve.llm would hold it for 50 ms to fill a batch.
    fields["experimental_configs"] = {"stream_batching_interval_ms": 0, **fields["experimental_configs"]}
    fields["engine_kwargs"] = {**_engine_defaults(spec), **fields["engine_kwargs"]}
    if variables := _variables(spec):
        fields["runtime_env"] = _with(variables, fields, inherited)
    return fields


def _deployment(declared: Mapping[str, Any]) -> dict[str, Any]:
    replicas = {} if "autoscaling_config" in declared else {"num_replicas": 1}
    return {**replicas, "max_constructor_retry_count": 1, **declared}


def _engine_defaults(spec: VllmEngineSpec) -> dict[str, Any]:
    # Without it vLLM does not report how much of a prompt it found in its prefix cache.
    defaults: dict[str, Any] = {"enable_prompt_tokens_details": True}
    if spec.gpu_share is not None:
        # vLLM does not start unless so much of the GPU is free, even where kv_cache_memory_bytes says what
        # it takes; its default is nearly the whole GPU, of which others have their shares.
        defaults["gpu_memory_utilization"] = spec.gpu_share
    return defaults


def _variables(spec: VllmEngineSpec) -> dict[str, str]:
    """Return the variables that vLLM's processes find in their environment unless the set sets them."""
    if spec.device == "cpu":
        return {VLLM_WORKER_IN_CORE: "1"}
    if spec.gpu_share is not None:
        # Workers would ask for a whole GPU each, and fit into no bundle. ray.serve.llm passes the
        # share on only where the set has a ``runtime_env``.
        return {"VLLM_RAY_PER_WORKER_GPUS": str(spec.gpu_share)}
    return {}


def _with(ours: Mapping[str, str], fields: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Return the replica's runtime environment with variables of ours.

    Of several environments ray.serve.llm takes the variables of one, and so does this.
    """
    own = fields.get("runtime_env") or {}
    of_actor = (fields["deployment_config"].get("ray_actor_options") or {}).get("runtime_env") or {}
    declared = [env["env_vars"] for env in (own, of_actor, inherited) if "env_vars" in env]
    return {**own, "env_vars": {**ours, **(declared[0] if declared else {})}}
