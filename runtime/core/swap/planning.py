"""Planning a swap before anything is touched: what is loaded, where it fits, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from runtime.core.model_set.digest import Content
from runtime.core.model_set.memory import (
    CpuPlan,
    Device,
    DevicePlan,
    EnginePlan,
    GpuHolder,
    GpuPlan,
    Resources,
    SwapPlan,
    footprint,
    given_back,
    main_memory_of,
)
from runtime.core.model_set.warmup_tokens import warmup_bound
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import EXISTING, ControlState, EngineRecord, EngineState

_UNKNOWN_LOAD_S = 60.0
_UNKNOWN_WARM_S = 10.0
_DRAIN_S = 5.0
_KEPT = EXISTING | {EngineState.ABSENT}
_PASSING = frozenset({ReleaseState.STANDBY, ReleaseState.DRAINING})
_ASLEEP = frozenset({EngineState.ASLEEP, EngineState.SLEEPING})


class Strategy(Protocol):
    """How room is made for a candidate, and what that costs."""

    def freed(self, candidate: Content, state: ControlState) -> Mapping[str, int]:
        """Return the bytes that are given back meanwhile, by device."""
        ...

    def pause(self, seconds: float) -> float | None:
        """Return for how long new requests wait if bringing the candidate up takes ``seconds``."""
        ...

    def cost(self, seconds: float) -> str:
        """Return the cost in a sentence."""
        ...


class Beside:
    """The candidate comes up beside the live release, which is not touched."""

    def freed(self, candidate: Content, state: ControlState) -> Mapping[str, int]:  # noqa: ARG002 - the form
        """Return nothing."""
        return {}

    def pause(self, seconds: float) -> float | None:  # noqa: ARG002 - the form
        """Return None: no request waits."""
        return None

    def cost(self, seconds: float) -> str:
        """Return the cost in a sentence."""
        return f"both releases are resident; live in about {seconds:.0f} s; no request waits"


class SleepLive:
    """The live engines sleep while the candidate comes up; new requests wait."""

    def freed(self, candidate: Content, state: ControlState) -> Mapping[str, int]:
        """Return what the live engines give back that the candidate does without."""
        freed: dict[str, int] = {}
        for engine in _live_engines(candidate, state):
            for device in engine.placement:
                freed[device] = freed.get(device, 0) + given_back(engine)
        return freed

    def pause(self, seconds: float) -> float | None:
        """Return the drain of what is under way and the candidate's way to being warm."""
        return _DRAIN_S + seconds

    def cost(self, seconds: float) -> str:
        """Return the cost in a sentence."""
        return f"new requests wait for about {_DRAIN_S + seconds:.0f} s while the live engines sleep"


STRATEGIES: Mapping[str, Strategy] = {"beside": Beside(), "sleep_live": SleepLive()}


def _live_engines(candidate: Content, state: ControlState) -> Iterator[EnginePlan]:
    """Yield the live engines that sleep for the candidate, as they were planned when they were loaded."""
    live = state.live
    for digest in sorted(live.engines - set(candidate.engines.values())) if live else ():
        record = state.engines.get(digest)
        if record is not None and record.spec is not None and record.spec.sleeps:
            yield from _as_loaded(state, record)


def _as_loaded(state: ControlState, record: EngineRecord) -> Iterator[EnginePlan]:
    """Yield an engine as it was planned when it was loaded, if that is known."""
    loader = state.release(record.loaded_by or 0)
    planned = loader.plan.plan_of(record.digest) if loader and loader.plan else None
    if planned is not None:
        yield planned


def _to_wake(reused: Collection[str], state: ControlState) -> dict[str, int]:
    """Return the bytes, by device, that reused engines take again which sleep now."""
    needed: dict[str, int] = {}
    for digest in reused:
        record = state.engines[digest]
        for engine in _as_loaded(state, record) if record.state in _ASLEEP else ():
            for device in engine.placement:
                needed[device] = needed.get(device, 0) + given_back(engine)
    return needed


def _to_sleep(candidate: Content, state: ControlState, known: Collection[str]) -> dict[str, int]:
    """Return the bytes of main memory that live engines take once they sleep: vLLM moves weights there."""
    needed: dict[str, int] = {}
    for engine in _live_engines(candidate, state):
        if engine.kind != "vllm":
            continue
        for memory in (main_memory_of(device) for device in engine.placement):
            if memory in known:
                needed[memory] = needed.get(memory, 0) + engine.footprint.weights
    return needed


def plan(
    candidate: Content, state: ControlState, devices: Sequence[Device], resources: Resources | None = None
) -> SwapPlan:
    """Return what a swap to ``candidate`` would do and cost now.

    ``resources`` is what Ray has to give, if it reports it.
    """
    model_set = candidate.model_set
    reused = {d for d in candidate.engines.values() if d in state.engines and _is_kept(state, d)}
    strategy = STRATEGIES[model_set.strategy]
    needed = Counter(_to_wake(reused, state))
    needed.update(_to_sleep(candidate, state, {device.id for device in devices}))
    room = _Room(devices, strategy.freed(candidate, state), needed)
    loaded = tuple(room.take(engine) for engine in _to_load(candidate, reused, devices))
    digests = {engine.digest for engine in loaded}
    gpus = _gpus(candidate, digests, state, devices, resources)
    cpus = _cpus(candidate, digests, state, resources)
    short = any(device.shortfall for device in room.plans())
    short = short or any(counted is not None and counted.shortfall > 0.0 for counted in (gpus, cpus))
    seconds = _seconds(candidate, loaded, state)
    live = state.live.engines if state.live else frozenset()
    return SwapPlan(
        fits=not short,
        strategy=model_set.strategy,
        cost=strategy.cost(seconds),
        warmup_tokens=warmup_bound(candidate),
        pause_s=strategy.pause(seconds) if state.live else None,
        reused=tuple(name for name, digest in candidate.engines.items() if digest in reused),
        loaded=loaded,
        unloaded=tuple(sorted(live - set(candidate.engines.values()))),
        devices=room.plans(),
        gpus=gpus,
        cpus=cpus,
    )


def _is_kept(state: ControlState, digest: str) -> bool:
    return state.engines[digest].state in _KEPT and bool(state.users_of(digest))


def _to_load(candidate: Content, reused: set[str], devices: Sequence[Device]) -> list[EnginePlan]:
    """Return the engines to load, the largest first: small ones fit into what is left."""
    engines: dict[str, EnginePlan] = {}
    sizes: dict[str, int] = {}
    for device in devices:
        sizes[device.kind] = max(device.total, sizes.get(device.kind, 0))
    for name, digest in candidate.engines.items():
        if digest in reused or digest in engines:
            continue
        spec, weights = candidate.spec_of(digest)
        engines[digest] = EnginePlan(
            name=name,
            digest=digest,
            kind=spec.kind,
            replicas=spec.replicas,
            devices_per_replica=spec.shards,
            footprint=footprint(spec, weights.size if weights else None, sizes.get(spec.device, 0)),
            placement=(spec.device,),
        )
    return sorted(engines.values(), key=lambda e: e.footprint.total, reverse=True)


class _Room:
    """Devices being filled, each shard going where most is left."""

    def __init__(
        self, devices: Sequence[Device], freed: Mapping[str, int], needed: Mapping[str, int]
    ) -> None:
        self.devices = devices
        self.freed = freed
        self.needed = dict(needed)
        self._left: dict[str, list[tuple[int, int]]] = {}
        """By kind, a heap of devices with most left first: what is missing to none left, and its place."""
        for place, device in enumerate(devices):
            left = device.free + freed.get(device.id, 0) - self.needed.get(device.id, 0)
            self._left.setdefault(device.kind, []).append((-left, place))
        for heap in self._left.values():
            heapify(heap)

    def take(self, engine: EnginePlan) -> EnginePlan:
        """Place every shard of every replica; the shards of one replica on different devices."""
        (kind,) = engine.placement
        size, placement = engine.footprint.total, []
        for _ in range(engine.replicas):
            heap = self._left.get(kind, [])
            mine = [heappop(heap) for _ in range(min(engine.devices_per_replica, len(heap)))]
            for lack, place in mine:
                heappush(heap, (lack + size, place))
            names = [self.devices[place].id for _, place in mine]
            names += [f"another {kind}"] * (engine.devices_per_replica - len(mine))
            for name in names:
                self.needed[name] = self.needed.get(name, 0) + size
            placement += names
        return engine.model_copy(update={"placement": tuple(placement)})

    def plans(self) -> tuple[DevicePlan, ...]:
        """Return every device that there is, and those that would be needed besides."""
        known = {device.id: device for device in self.devices}
        missing = [Device(id=i, kind="cpu", total=0, free=0) for i in self.needed if i not in known]
        return tuple(
            DevicePlan(
                device=device.id,
                total=device.total,
                free=device.free,
                freed=self.freed.get(device.id, 0),
                needed=self.needed.get(device.id, 0),
            )
            for device in [*self.devices, *missing]
        )


# -- GPUs as Ray counts them ----------------------------------------------------------------------


def _gpus(
    candidate: Content,
    loaded: Collection[str],
    state: ControlState,
    devices: Sequence[Device],
    resources: Resources | None,
) -> GpuPlan | None:
    """Return what the swap needs of the GPUs beside what resident engines hold; None where there is none.

    What is on its way out does not count: its GPUs are free before long.
    """
    total = sum(device.kind == "gpu" for device in devices)
    if not total:
        return None
    specs = [candidate.spec_of(digest)[0] for digest in loaded]
    held = [_holder(record, state) for digest, record in state.engines.items() if digest not in loaded]
    return GpuPlan(
        total=total,
        needed=sum(spec.gpus * spec.replicas for spec in specs),
        held=tuple(holder for holder in held if holder is not None),
        others=_others(state, resources),
    )


def _others(state: ControlState, resources: Resources | None) -> float:
    """Return how many GPUs Ray has given to others: all of one's own engines count as placed."""
    if resources is None:
        return 0.0
    specs = [record.spec for record in state.engines.values() if record.spec is not None]
    own = sum(spec.gpus * spec.replicas for spec in specs)
    return max(0.0, round(resources.gpus - resources.gpus_free - own, 4))


def _holder(record: EngineRecord, state: ControlState) -> GpuHolder | None:
    """Return how many GPUs an engine holds; None if it holds none, or no release needs it any more."""
    users = state.users_of(record.digest)
    if not users or record.spec is None or not record.spec.gpus:
        return None
    return GpuHolder(
        engine=state.sets_call(record.digest),
        releases=tuple(user.number for user in users),
        gpus=record.spec.gpus * record.spec.replicas,
        passing=all(user.state in _PASSING for user in users),
    )


# -- CPUs as Ray counts them ----------------------------------------------------------------------


def _cpus(
    candidate: Content, loaded: Collection[str], state: ControlState, resources: Resources | None
) -> CpuPlan | None:
    """Return what the swap needs of the CPUs beside what Ray has given out; None if that is unknown."""
    if resources is None:
        return None
    specs = [candidate.spec_of(digest)[0] for digest in loaded]
    coming = (state.engines[digest] for digest in state.in_states(EngineState.ABSENT) - set(loaded))
    specs += [record.spec for record in coming if record.spec is not None and state.users_of(record.digest)]
    needed = sum(spec.cpus * spec.replicas for spec in specs)
    return CpuPlan(total=resources.cpus, free=resources.cpus_free, needed=round(needed, 4))


# -- cost -----------------------------------------------------------------------------------------


def _seconds(candidate: Content, loaded: Sequence[EnginePlan], state: ControlState) -> float:
    """Return how long it should take to load (vLLM one after the other) and to warm, by what it took last."""
    name, history = candidate.model_set.name, state.history
    took = {e.name: history.get(f"load {name}/{e.name}", _UNKNOWN_LOAD_S) for e in loaded}
    in_turn = sum(took[e.name] for e in loaded if e.kind == "vllm")
    loading = max(in_turn, *(took[e.name] for e in loaded)) if loaded else 0.0
    return loading + history.get(f"warm {name}", _UNKNOWN_WARM_S)
