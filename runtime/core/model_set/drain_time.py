"""How long processes that stop wait for the answers under way, and which model sets need longer.

Serve fixes the time when a process is deployed and kills what has not ended by then. So the time is a
setting of the installation, and a chain whose deadline is longer than it is refused: its answers would be cut
whenever a gateway stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.core.model_set.engines import EngineSpec, VllmEngineSpec
from runtime.core.model_set.model_set import ModelSet
from runtime.errors import ModelSetError

TIMEOUT = "graceful_shutdown_timeout_s"
"""Serve's name, in a deployment's configuration, for how long it waits before it kills."""

GATEWAY_MARGIN_S = 35.0
"""What Serve waits for a gateway beyond the setting: behind HAProxy one that stops still takes requests for
30 s, and at its end it says goodbye."""

ENGINE_MARGIN_S = 15.0
"""The same for a replica of an engine: others call it while Serve waits for the calls that it knows of."""


def gateway_timeout(drain_timeout: float) -> float:
    """Return how many seconds Serve gives a gateway that stops."""
    return drain_timeout + GATEWAY_MARGIN_S


def engine_drain(shutdown_timeout: float) -> float:
    """Return for how many of the seconds that Serve gives a replica that stops its calls can go on."""
    return max(shutdown_timeout - ENGINE_MARGIN_S, shutdown_timeout / 2.0)


def with_drain_timeout(spec: EngineSpec, drain_timeout: float) -> EngineSpec:
    """Return what is deployed of ``spec``: with a drain time that is long enough, unless it sets its own."""
    config = {TIMEOUT: drain_timeout + ENGINE_MARGIN_S, **_deployment_config(spec)}
    if isinstance(spec, VllmEngineSpec):
        llm = spec.llm_config.model_copy(update={"deployment_config": config})
        return spec.model_copy(update={"llm_config": llm})
    return spec.model_copy(update={"deployment_config": config})


def check_deadlines(model_set: ModelSet, source: str, drain_timeout: float) -> None:
    """Refuse a set whose answers may take longer than a process that stops waits for them.

    Raises:
        ModelSetError: names the chain, or the engine that sets itself how long Serve waits.

    """
    for name, chain in model_set.chains.items():
        if chain.deadline > drain_timeout:
            reason = (
                f"{chain.deadline:g} s are more than the {drain_timeout:g} s for which a gateway that stops "
                "waits for its answers; raise the setting drain_timeout_s (INTERLOCK_DRAIN_TIMEOUT_S)"
            )
            raise ModelSetError(source, f"chains.{name}.deadline", reason)
        for engine in sorted(chain.engines):
            _check_engine(model_set.engines[engine], engine, name, chain.deadline, source)


def _check_engine(spec: EngineSpec, engine: str, chain: str, deadline: float, source: str) -> None:
    declared = _deployment_config(spec).get(TIMEOUT)
    if isinstance(declared, int | float) and engine_drain(declared) < deadline:
        part = ".llm_config" if isinstance(spec, VllmEngineSpec) else ""
        reason = (
            f"a replica that stops would wait {engine_drain(declared):g} s for its answers, less than the "
            f"deadline of chain {chain!r}; leave it out, or say at least {deadline + ENGINE_MARGIN_S:g}"
        )
        raise ModelSetError(source, f"engines.{engine}{part}.deployment_config.{TIMEOUT}", reason)


def _deployment_config(spec: EngineSpec) -> Mapping[str, Any]:
    if isinstance(spec, VllmEngineSpec):
        return spec.llm_config.deployment_config
    return spec.deployment_config
