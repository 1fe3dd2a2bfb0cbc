"""vLLM's own metrics, read from the registry of the process that it runs in.

Its labels for the model and for the engine within the process are dropped: the digest that the manager
adds says which engine it is. What describes settings or names adapters (``vllm:*_info``) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from runtime.core.metering.series import Family, measured
from runtime.core.metering.usage import UNCOUNTED, Usage
from runtime.observe.exposition import families_of

_PREFIX = "vllm:"
_OF_THE_PROCESS = ("model_name", "engine")
_GENERATED = "vllm:generation_tokens"
_SHARES = frozenset({"vllm:kv_cache_usage_perc", "vllm:engine_sleep_state"})
"""Gauges that must not be added up."""


def vllm_families(registry: CollectorRegistry) -> list[Family]:
    """Return what vLLM has counted in this process."""
    families = families_of(registry, _PREFIX, without=_OF_THE_PROCESS, peaks=_SHARES)
    return [family for family in families if not family.name.endswith("_info")]


def uncounted(families: Iterable[Family], counted: Usage) -> list[Family]:
    """Return how many tokens vLLM has generated that nobody's call has ``counted``: rightly none, ever.

    ``counted`` has to be newer than ``families``. Nothing is returned if vLLM does not count.
    """
    generated = [sum(family.samples.values()) for family in families if family.name == _GENERATED]
    if not generated:
        return []
    text = "Tokens that the engine has generated and no call has counted."
    return [measured(UNCOUNTED, text, [({}, max(0.0, generated[0] - counted.completion))])]
