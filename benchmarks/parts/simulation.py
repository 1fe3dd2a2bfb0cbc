"""The simulated world as it is measured: many gateways in a network, model sets of any size.

What the code itself takes is no part of virtual time (``runtime.testing.world``): the controller's is
measured apart, as CPU time.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from typing import Any

from runtime.control.controller import Controller
from runtime.core.metering.series import Family
from runtime.core.model_set.digest import Content
from runtime.core.model_set.memory import Device
from runtime.core.swap import events as ev
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.routes import GatewayReport
from runtime.observe.metrics import GatewayMetrics
from runtime.testing.cluster import FakeCluster
from runtime.testing.model_sets import content_of
from runtime.testing.network import Network
from runtime.testing.virtual_time import LoopClock
from runtime.testing.world import World
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


# -- the whole ------------------------------------------------------------------------------------


class CountingController(Controller):
    """The controller, and how much it has folded."""

    def __init__(self, *parts: Any) -> None:
        self._told = 0
        self.followed: list[tuple[float, str, int]] = []
        """When which gateway was first heard to route by which version of the table."""
        self._versions: dict[str, int] = {}
        self._clock_of_reports = LoopClock()
        super().__init__(*parts)

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


class Simulation(World):
    """A world of many gateways in a network, whose controller is measured."""

    controller_type = CountingController
    controller: CountingController

    def __init__(
        self,
        gateways: int,
        network: Network | None = None,
        seed: int = 1,
        devices: Sequence[Device] | None = None,
    ) -> None:
        self._network = network or Network()
        cluster = FakeCluster(LoopClock(), devices) if devices else None
        super().__init__(gateways, cluster=cluster, network=self._network, seed=seed)
        self.slow = self._network.slow(gateways)
        self._cpu = CpuMeter(self.controller.run())

    def new_meter(self) -> Meter:
        """Return one that tells nothing."""
        meter = Meter()
        meter.metrics = _Untold()
        return meter

    async def control(self) -> None:
        """Run the controller, and measure it."""
        await self._cpu

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds that the controller's loop has taken, without the effects that it started."""
        return self._cpu.seconds

    def let_polls_hang(self, *, hang: bool) -> None:
        """Say whether slow gateways' long polls hang from now on, in a network with a ``stall``."""
        for number in self.slow:
            self.gateways[number].link.stall = self._network.stall if hang else 0.0

    async def bring_up(self, content: Content) -> None:
        """Want a model set and return once every gateway that takes requests routes by it."""
        self.want(content)
        await self.until_live(content, _LIMIT_S)

    async def roll_back(self) -> None:
        """Command a rollback and return once it is committed."""
        command = Command(Action.ROLLBACK, "simulation", ANY_EDITION)
        before = self.state.live
        await self.controller.command(command)
        await self.until(
            lambda state: state.live is not before and state.live is not None and state.is_wanted(state.live),
            _LIMIT_S,
        )

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
    return content_of(declared)


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
