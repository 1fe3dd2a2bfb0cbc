"""Many gateways and engines in one process and in virtual time, around the real control code.

Controller, followers, routing, admission and chains are the ones that serve. Simulated are the engines
(``runtime.testing.cluster``), the network between gateways and manager, and time: where the event loop would
wait, its clock jumps. So the times that come out are those of messages and waits, as they were drawn; what
the code itself takes is no part of them, and is measured apart as CPU time.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from runtime.clock import Clock
from runtime.control.controller import Controller
from runtime.control.journal import MemoryJournal
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import Family, MetricsSnapshot
from runtime.core.model_set.digest import Content
from runtime.core.model_set.memory import Device
from runtime.core.model_set.model_set import parse
from runtime.core.swap import events as ev
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.swap.state import ControlState
from runtime.core.views.forms import Status
from runtime.core.views.status import status
from runtime.engines.port import EngineClient
from runtime.observe.exposition import text_of
from runtime.observe.metrics import GatewayMetrics
from runtime.settings import Settings
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from runtime.traffic.admission import Admission
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter

CHAIN = "agent"
"""The chain that every simulated model set has."""

_LIMIT_S = 3600.0
"""Virtual seconds after which what a simulation waits for will not come."""


class CpuMeter:
    """Awaits a coroutine and adds up the CPU seconds that its own steps take, without what it awaits."""

    def __init__(self, measured: Coroutine[Any, Any, None]) -> None:
        self._measured = measured
        self.seconds = 0.0

    def __await__(self) -> Generator[Any, Any, None]:
        """Take the coroutine's steps."""
        error: BaseException | None = None
        while True:
            begun = time.thread_time()
            try:
                waits = self._measured.send(None) if error is None else self._measured.throw(error)
            except StopIteration:
                return
            finally:
                self.seconds += time.thread_time() - begun
            try:
                yield waits
                error = None
            except BaseException as thrown:  # noqa: BLE001 - it is handed on to where it belongs
                error = thrown


# -- the network ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """How long messages take one way, in seconds: log-normal, as measured latencies are."""

    median: float = 0.003
    """A Serve call there and back takes 2 to 14 ms on two cores, by load."""
    sigma: float = 0.8
    """Of the logarithm: at 0.8 one message of a hundred takes 6.4 times the median."""
    slow_share: float = 0.0
    slow_factor: float = 100.0
    """By how much messages of a slow gateway take longer."""
    stall: float = 0.0
    """For how long the answer to a slow gateway's long poll hangs; its reports go on."""

    def slow(self, gateways: int) -> frozenset[int]:
        """Return which gateways are slow: spread evenly, at least one if there is a share."""
        count = math.ceil(self.slow_share * gateways)
        return frozenset(position * gateways // count for position in range(count))


class Link:
    """One gateway's way to the manager and to the engines: everything takes its time."""

    def __init__(self, simulation: Simulation, network: Network, seed: str, *, slow: bool) -> None:
        self._simulation = simulation
        self._random = random.Random(seed)  # noqa: S311 - latencies, not secrets
        self._sigma = network.sigma
        stalls = network.stall > 0.0
        self._stall = network.stall if slow else 0.0
        self._median = network.median * (network.slow_factor if slow and not stalls else 1.0)
        self._kept: frozenset[str] = frozenset()

    async def _pass(self) -> None:
        await asyncio.sleep(self._random.lognormvariate(math.log(self._median), self._sigma))

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Long-poll the table."""
        await self._pass()
        table = await self._simulation.controller.hub.next_table(report)
        await self._pass()
        if self._stall and self._simulation.stalling:
            await asyncio.sleep(self._stall)
        return table

    async def report(self, report: GatewayReport) -> TableStamp:
        """Report, and hear the version of the newest table."""
        await self._pass()
        version = self._simulation.controller.hub.report(report)
        await self._pass()
        return version

    async def activity(self, told: GatewayActivity) -> None:
        """Say what was counted for status and health."""
        await self._pass()
        self._simulation.controller.hub.activity.take(told)
        await self._pass()

    async def leave(self, gateway: str) -> None:
        """Say goodbye."""
        self._simulation.controller.hub.leave(gateway)

    async def count(self, told: MetricsSnapshot) -> None:
        """Say what was counted for Prometheus."""
        await self._pass()
        await self._simulation.controller.metrics.take(told)
        await self._pass()

    async def metrics(self, told: MetricsSnapshot) -> bytes:
        """Return what the whole application has counted."""
        await self._pass()
        return text_of(await self._simulation.controller.metrics.scrape(told))

    async def status(self) -> Status:
        """Return the control state."""
        controller = self._simulation.controller
        return status(controller.state, controller.hub.activity.of(controller.state.gateways))

    @property
    def clients(self) -> int:
        """How many engines it holds clients of."""
        return len(self._kept)

    async def retain(self, engines: Collection[str]) -> None:
        """Note which engines there are."""
        self._kept = frozenset(engines)

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client once it has answered a ping."""
        await self._pass()
        client = await self._simulation.cluster.resolve(engine)
        await self._pass()
        return client


# -- the whole ------------------------------------------------------------------------------------


class CountingController(Controller):
    """The controller, and how much it has folded."""

    def __init__(self, journal: MemoryJournal, cluster: FakeCluster, clock: Clock, silence_s: float) -> None:
        self._told = 0
        self.followed: list[tuple[float, str, int]] = []
        """When which gateway was first heard to route by which version of the table."""
        self._versions: dict[str, int] = {}
        self._clock_of_reports = clock
        super().__init__(journal, cluster, clock, silence_s)

    def post(self, event: ev.Event) -> None:
        """Count the event and put it into the inbox."""
        self._told += not isinstance(event, ev.Durable)
        if isinstance(event, ev.GatewayReported):
            self._note(event.report)
        super().post(event)

    @property
    def events(self) -> int:
        """How many events came: those that are in the journal, decisions included, and what was only told."""
        return self.state.revision + self._told

    def _note(self, report: GatewayReport) -> None:
        if report.version > self._versions.get(report.gateway, -1):
            self._versions[report.gateway] = report.version
            self.followed.append((self._clock_of_reports.now(), report.gateway, report.version))


class _Untold(GatewayMetrics):
    """Counts for Prometheus and tells nothing: for hundreds of gateways in one process that is most work."""

    def families(self) -> Iterator[Family]:
        """Yield nothing."""
        return iter(())


class Simulation:
    """Use as ``async with Simulation(256) as simulation`` on a ``VirtualTimeLoop``."""

    def __init__(
        self,
        gateways: int,
        network: Network | None = None,
        seed: int = 1,
        devices: Sequence[Device] | None = None,
    ) -> None:
        network, settings = network or Network(), Settings()
        self.clock = LoopClock()
        self.cluster = FakeCluster(self.clock, devices) if devices else FakeCluster(self.clock)
        silence = settings.gateway_silence_s
        self.controller = CountingController(MemoryJournal(), self.cluster, self.clock, silence)
        self.slow = network.slow(gateways)
        self.stalling = False
        """Whether slow gateways' long polls hang now, in a network with a ``stall``."""
        self._cpu = CpuMeter(self.controller.run())
        self.followers: list[Follower] = []
        self.admissions: list[Admission] = []
        for number in range(gateways):
            link, meter = Link(self, network, f"{seed}/{number}", slow=number in self.slow), Meter()
            meter.metrics = _Untold()
            name = f"gateway-{number}"
            # All gateways share one loop: to count its tasks for each of them would be all that is done.
            beat = settings.heartbeat_s
            follower = Follower(name, link, link, meter, self.clock, beat, silence, tasks=lambda: 0)
            self.followers.append(follower)
            self.admissions.append(Admission(follower.routing, self.clock, meter))
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start the manager, then the gateways."""
        self._tasks = [asyncio.create_task(self._control())]
        self._tasks += [asyncio.create_task(follower.run()) for follower in self.followers]
        return self

    async def _control(self) -> None:
        await self._cpu

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def state(self) -> ControlState:
        """The control state as it is now."""
        return self.controller.state

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds that the controller's loop has taken, without the effects that it started."""
        return self._cpu.seconds

    async def until(self, condition: Callable[[ControlState], bool]) -> None:
        """Return once the state is so. Raises TimeoutError after an hour of virtual time."""
        async with asyncio.timeout(_LIMIT_S):
            while not condition(self.state):
                if self._tasks[0].done():
                    self._tasks[0].result()
                await asyncio.sleep(0.05)

    async def bring_up(self, content: Content) -> None:
        """Want a model set and return once every gateway that takes requests routes by it."""
        now = self.clock.wall()
        self.controller.post(ev.Wanted(at=now, change=content.digest, source="simulation", content=content))
        await self.until(lambda state: is_live(state, content) and is_acknowledged(state))

    async def roll_back(self) -> None:
        """Command a rollback and return once it is committed."""
        command = Command(Action.ROLLBACK, "simulation", ANY_EDITION)
        before = self.state.live
        commanded = await self.controller.command(command)
        wanted = commanded.wanted
        await self.until(
            lambda state: state.live is not before and state.live is not None and state.is_wanted(state.live)
        )
        assert wanted is not None  # noqa: S101 - a rollback wants a release

    def acknowledgements(self) -> dict[str, float]:
        """Return how long after the commit of the live release each gateway was heard to route by it."""
        live = self.state.live
        if live is None:
            return {}
        committed = live.entered[live.state]
        first: dict[str, float] = {}
        for at, gateway, version in self.controller.followed:
            if version >= live.promoted:
                first.setdefault(gateway, at - committed)
        return first


def is_live(state: ControlState, content: Content) -> bool:
    """Say whether the live release is of this content."""
    live = state.live
    return live is not None and live.content.digest == content.digest


def is_acknowledged(state: ControlState) -> bool:
    """Say whether every gateway that is waited for routes by the live release."""
    return state.live is not None and state.acknowledgement_of(state.live).last is not None


def model_set(name: str, engines: int, version: int = 1, **changes: Any) -> Content:
    """Return a set of so many scripted engines; another ``version`` shares none of them.

    Its chains have up to eight steps each, so that every engine is in one.
    """
    scripts = {f"engine-{n}": _script(version) for n in range(engines)}
    names = list(scripts)
    groups = [names[begin : begin + 8] for begin in range(0, engines, 8)]
    chains = {CHAIN if n == 0 else f"{CHAIN}-{n}": _chain(group) for n, group in enumerate(groups)}
    for position, script in enumerate(scripts.values()):
        script["reply"] = f"v{version}-{position}-"
    declared: Mapping[str, Any] = {
        "name": name,
        "engines": scripts,
        "chains": chains,
        "warmup": {"at_once": [1]},
        "rollback_window": "24h",
        **changes,
    }
    return Content.of(parse(declared, f"{name}.yaml", lambda path: path), {})


def _script(version: int) -> dict[str, Any]:
    return {
        "kind": "fake",
        "load": "2s",
        "time_to_first_token": "20ms",
        "inter_token": "10ms",
        "tokens": 2,
        "context_length": 4096 + version,
        "memory": {"weights": "8GiB", "kv_cache": "4GiB"},
    }


def _chain(engines: Sequence[str]) -> dict[str, Any]:
    steps = [{"id": f"step_{n}", "generate": {"engine": engine}} for n, engine in enumerate(engines)]
    return {
        "deadline": "60s",
        "steps": steps,
        "answer": steps[-1]["id"],
        "samples": [{"messages": [{"role": "user", "content": "a short question"}]}],
    }
