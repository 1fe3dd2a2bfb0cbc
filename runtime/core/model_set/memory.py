"""How much memory and how many GPUs a swap needs: values, and what one engine takes.

Laying a whole swap out is ``core.swap.planning``'s.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from runtime.core.declaration.units import size_text
from runtime.core.model_set.engines import (
    PLACEMENT_EXAMPLE,
    DeviceKind,
    EngineSpec,
    FakeEngineSpec,
    TransformersEngineSpec,
    VllmEngineSpec,
)

GIB = 2**30

VLLM_ON_GPU = round(1.5 * GIB)
"""A process's CUDA context, kernels and activations: what vLLM uses beside weights and KV cache."""

VLLM_ON_CPU = 2 * GIB
"""A replica, an engine core and a worker with torch: 3.7 GB measured with 0.3 of weights and 1 GiB of KV."""

ENCODER = round(0.6 * GIB)
"""A process with torch."""

_KV_ON_CPU_GIB = 4
"""What vLLM takes on a CPU where VLLM_CPU_KVCACHE_SPACE does not say otherwise."""

_WHOLE_GPU = 0.9
"""Part of a GPU's memory that vLLM takes where the set neither declares it nor shares the GPU."""

_RAY_DIGITS = 4
"""Ray counts resources in ten-thousandths."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Device(_Value):
    """A GPU, or the main memory of a node. Sizes in bytes."""

    id: str
    kind: DeviceKind
    total: int
    free: int


def main_memory_of(device: str) -> str:
    """Return the id of the main memory of the node that the device, or the node, of this id is of."""
    return f"{device.partition('/')[0]}/memory"


class Resources(_Value):
    """The resources that Ray counts in the whole cluster: in total, and what is free."""

    cpus: float = 0.0
    cpus_free: float = 0.0
    gpus: float = 0.0
    gpus_free: float = 0.0


class Footprint(_Value):
    """Bytes that one replica of an engine takes on each of its devices."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.overhead


class EnginePlan(_Value):
    """An engine that is to be loaded."""

    name: str
    digest: str
    kind: str
    replicas: int
    devices_per_replica: int
    footprint: Footprint
    placement: tuple[str, ...] = ()
    """Ids of the devices that its shards were laid out on, one for each shard of each replica."""


def given_back(engine: EnginePlan) -> int:
    """Return the bytes on each of its devices that an engine gives back while it sleeps.

    vLLM moves its weights to main memory, too: it cannot give its KV cache alone back.
    """
    own = engine.footprint
    return own.weights + own.kv_cache if engine.kind == "vllm" else own.kv_cache


class DevicePlan(_Value):
    """What a swap needs on one device beside what is there. Sizes in bytes."""

    device: str
    total: int
    free: int
    freed: int
    """What sleeping engines give back meanwhile."""
    needed: int

    @property
    def shortfall(self) -> int:
        """What is missing; 0 if it fits."""
        return max(0, self.needed - self.free - self.freed)


class GpuHolder(_Value):
    """A resident engine and how many GPUs Ray keeps for all its replicas, asleep or not."""

    engine: str
    """Its name."""
    releases: tuple[int, ...]
    """The releases that keep it resident."""
    gpus: float
    passing: bool = False
    """Only the rollback window of these releases keeps it."""


class CpuPlan(_Value):
    """What a swap needs of the CPUs that Ray counts: an engine without its own is never placed."""

    total: float
    free: float
    """That nobody has now."""
    needed: float
    """By the engines that are to be loaded, or are being loaded already."""

    @property
    def shortfall(self) -> float:
        """What is missing; 0 if there is enough."""
        return max(0.0, round(self.needed - self.free, _RAY_DIGITS)) if self.needed else 0.0


class GpuPlan(_Value):
    """What a swap needs of the GPUs as Ray counts them, whatever memory is free on them."""

    total: int
    needed: float
    """By the engines that are to be loaded."""
    held: tuple[GpuHolder, ...] = ()
    others: float = 0.0
    """That Ray has given to what is not this Interlock's."""

    @property
    def taken(self) -> float:
        """How many all holders and others have together."""
        return round(sum(holder.gpus for holder in self.held) + self.others, _RAY_DIGITS)

    @property
    def shortfall(self) -> float:
        """What is missing; 0 if there is enough."""
        return max(0.0, round(self.needed + self.taken - self.total, _RAY_DIGITS)) if self.needed else 0.0

    @property
    def lasting(self) -> GpuPlan:
        """The same once the rollback windows are over."""
        return self.model_copy(update={"held": tuple(h for h in self.held if not h.passing)})


class SwapPlan(_Value):
    """What a swap would reuse, load and unload, whether there is room for it, and what it costs."""

    fits: bool = True
    strategy: str = "beside"
    cost: str = ""
    warmup_tokens: int = 0
    """Upper bound of what the warm-up takes."""
    pause_s: float | None = None
    """Seconds for which new requests wait; None if they do not."""
    reused: tuple[str, ...] = ()
    loaded: tuple[EnginePlan, ...] = ()
    unloaded: tuple[str, ...] = ()
    """Digests of engines that go when the rollback window of the live release is over."""
    devices: tuple[DevicePlan, ...] = ()
    gpus: GpuPlan | None = None
    """None where there is no GPU."""
    cpus: CpuPlan | None = None
    """None where Ray does not say how many there are."""

    @cached_property
    def _by_digest(self) -> dict[str, EnginePlan]:
        return {plan.digest: plan for plan in self.loaded}

    def plan_of(self, engine: str) -> EnginePlan | None:
        """Return what was planned for the engine with this digest, if it was to be loaded."""
        return self._by_digest.get(engine)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as the admin API shows it."""
        shown = self.model_dump(mode="json")
        for device, plan in zip(shown["devices"], self.devices, strict=True):
            device["shortfall"] = plan.shortfall
        if self.gpus is not None:
            shown["gpus"]["shortfall"] = self.gpus.shortfall
        if self.cpus is not None:
            shown["cpus"]["shortfall"] = self.cpus.shortfall
        return shown


def refusal(plan: SwapPlan) -> str | None:
    """Return why a swap cannot begin, with the numbers of each device, or None if it can."""
    if plan.fits:
        return None
    missing = [
        f"{d.device}: needs {size_text(d.needed)}, has {size_text(d.free + d.freed)} free"
        f" of {size_text(d.total)}, short of {size_text(d.shortfall)}"
        for d in plan.devices
        if d.shortfall
    ]
    advice = [_less_memory(plan)] if missing else []
    if plan.gpus is not None and plan.gpus.shortfall:
        missing.append(_too_few(plan.gpus))
        advice.append(_more_gpus(plan.gpus))
    if plan.cpus is not None and plan.cpus.shortfall:
        cpus = plan.cpus
        missing.append(
            f"CPUs that Ray counts: needs {cpus.needed:g}, has {cpus.free:g} free of {cpus.total:g}, "
            f"short of {cpus.shortfall:g}"
        )
        advice.append("start Ray with more (ray start --num-cpus), add nodes, or let engines ask for fewer")
    return (
        f"it does not fit ({plan.strategy}): {'; '.join(missing)}. Nothing was touched; {'; '.join(advice)}"
    )


def _too_few(gpus: GpuPlan) -> str:
    holders = ", ".join(
        f"{holder.engine} of release {'/'.join(map(str, holder.releases))} holds {holder.gpus:g}"
        for holder in gpus.held
    )
    if gpus.others:
        holders += f"{', ' if holders else ''}others hold {gpus.others:g}"
    held = f"{gpus.taken:g} of {gpus.total} held ({holders})" if holders else f"there are {gpus.total}"
    return f"GPUs: needs {gpus.needed:g}, {held}, short of {gpus.shortfall:g}"


def _more_gpus(gpus: GpuPlan) -> str:
    wait = "" if gpus.lasting.shortfall else " or wait until the rollback window of older releases is over"
    return (
        f"let the engines of both sets share GPUs (in llm_config: {PLACEMENT_EXAMPLE}) or add GPUs{wait};"
        " strategy: sleep_live does not help, for Ray keeps the GPUs of an engine that sleeps"
    )


def _less_memory(plan: SwapPlan) -> str:
    less = "give its engines less kv_cache or fewer replicas"
    sleeping = plan.strategy == "beside" and not (plan.gpus and plan.gpus.shortfall)
    return less + (" or declare strategy: sleep_live" if sleeping else "")


# -- one engine -----------------------------------------------------------------------------------


def footprint(spec: EngineSpec, weights: int | None, device_total: int) -> Footprint:
    """Return what one replica takes on each of its devices.

    ``weights`` is the size of the weight files, if known; ``device_total`` that of a device, for an
    engine that takes a share of it. What the set declares as ``memory`` wins.
    """
    declared = spec.memory
    overhead = _overhead(spec) if declared.overhead is None else declared.overhead
    own = (weights or 0) // spec.shards if declared.weights is None else declared.weights
    kv_cache = _kv_cache(spec, device_total, own + overhead)
    if declared.kv_cache is not None:
        kv_cache = declared.kv_cache
    return Footprint(weights=own, kv_cache=kv_cache, overhead=overhead)


def _overhead(spec: EngineSpec) -> int:
    match spec:
        case VllmEngineSpec():
            return VLLM_ON_CPU if spec.device == "cpu" else VLLM_ON_GPU
        case TransformersEngineSpec():
            return ENCODER
        case FakeEngineSpec():
            return 0


def _kv_cache(spec: EngineSpec, device_total: int, rest: int) -> int:
    if not isinstance(spec, VllmEngineSpec):
        return 0
    kwargs = spec.llm_config.engine_kwargs
    if kwargs.get("kv_cache_memory_bytes"):
        return int(kwargs["kv_cache_memory_bytes"])
    if spec.device == "cpu":
        variables = (spec.llm_config.runtime_env or {}).get("env_vars") or {}
        return int(variables.get("VLLM_CPU_KVCACHE_SPACE") or _KV_ON_CPU_GIB) * GIB
    share = float(kwargs.get("gpu_memory_utilization") or spec.gpu_share or _WHOLE_GPU)
    return max(0, round(share * device_total) - rest)
