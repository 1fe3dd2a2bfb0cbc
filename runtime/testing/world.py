"""A whole Interlock in one process and in virtual time, around the real control and traffic code.

Controller, followers, routing, admission and chains are the ones that serve. Simulated are the engines
(``cluster``), the network between processes (``network``), and time: where the event loop would wait, its
clock jumps. So the times that come out are those of messages and waits, as they were drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

from sqlalchemy.engine import Engine

from runtime.control.aggregator import MemoryMetrics
from runtime.control.controller import Controller
from runtime.control.journal import MemoryJournal
from runtime.control.roster import MemoryRoster
from runtime.core.model_set.digest import Content
from runtime.core.swap import events as ev
from runtime.core.swap.state import ControlState
from runtime.testing.cluster import FakeCluster
from runtime.testing.gateway import SILENCE_SECONDS, SimulatedGateway
from runtime.testing.manager import LocalManager
from runtime.testing.network import Link, Network
from runtime.testing.spending import StoredSpending
from runtime.testing.virtual_time import LoopClock
from runtime.traffic.meter import Meter

_POLL_SECONDS = 0.1
"""How often a state that is waited for is checked."""


class World:
    """Use as ``async with World() as world``, where time is virtual.

    What requests spend is kept in ``store``; without one, nobody counts it. Messages take no time unless
    there is a ``network``, which draws by ``seed``. ``installations`` says of which installation each
    gateway's store is; by default of the cluster's.
    """

    controller_type: ClassVar[type[Controller]] = Controller

    def __init__(
        self,
        gateways: int = 2,
        *,
        cluster: FakeCluster | None = None,
        journal: MemoryJournal | None = None,
        store: Engine | None = None,
        network: Network | None = None,
        seed: int = 1,
        installations: Sequence[str] = (),
    ) -> None:
        self.clock = LoopClock()
        self.cluster = cluster or FakeCluster(self.clock)
        self.journal = journal or MemoryJournal()
        self.metrics = MemoryMetrics()
        self.roster = MemoryRoster()
        meters = [self.new_meter() for _ in range(gateways)]
        # All gateways share one object of budgets, unlike in life: so one of them counts its warnings.
        warned = [meter.metrics for meter in meters[:1]]
        self.spending = None if store is None else StoredSpending(store, self.clock, warned)
        self.controller = self._new_controller()
        self.manager = LocalManager(self.controller, self.cluster, self.journal)
        own = [self.cluster.installation.id] * gateways
        parts = zip(meters, _latencies(network, gateways, seed), installations or own, strict=True)
        self.gateways = [
            SimulatedGateway(
                *(f"gateway-{n}", Link(self.manager, self.cluster, latency), meter, store_of, self.spending)
            )
            for n, (meter, latency, store_of) in enumerate(parts)
        ]
        self._managing: asyncio.Task[None] | None = None

    def new_meter(self) -> Meter:
        """Return what a gateway counts by."""
        return Meter()

    def _new_controller(self) -> Controller:
        return self.controller_type(
            self.journal,
            self.cluster,
            self.clock,
            SILENCE_SECONDS,
            None if self.spending is None else self.spending.usage,
            self.metrics,
            self.cluster.installation.id,
            self.roster,
        )

    async def __aenter__(self) -> Self:
        """Start the manager, then the gateways."""
        self._managing = asyncio.create_task(self.control())
        for gateway in self.gateways:
            gateway.start()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        """End every process, the manager last."""
        for gateway in reversed(self.gateways):
            await gateway.end()
        if self._managing is not None:
            self._managing.cancel()
            with suppress(asyncio.CancelledError):
                await self._managing
        if self.spending is not None:
            self.spending.close()

    # -- processes that die ---------------------------------------------------------------------------

    def control(self) -> Coroutine[Any, Any, None]:
        """Return what the manager's process does."""
        return self.controller.run()

    async def stop_manager(self) -> BaseException | None:
        """End the manager's process; cluster and gateways stay. Returns what it ended with."""
        self.manager.hang_up()
        ended, self._managing = self._managing, None
        if ended is None:
            return None
        ended.cancel()
        (outcome,) = await asyncio.gather(ended, return_exceptions=True)
        return outcome

    def start_manager(self) -> None:
        """Start a new manager on the same journal and cluster."""
        self.journal.epoch += 1
        self.controller = self._new_controller()
        self.manager.controller = self.controller
        self._managing = asyncio.create_task(self.control())

    @property
    def manager_ended(self) -> bool:
        """Whether there is no manager's process."""
        return self._managing is None or self._managing.done()

    async def lose(self, gateway: int) -> None:
        """Let a gateway's process vanish, without leaving."""
        self.manager.lost.add(self.gateways[gateway].name)
        await self.gateways[gateway].end()

    # -- swaps ----------------------------------------------------------------------------------------

    @property
    def state(self) -> ControlState:
        """The control state as it is now."""
        return self.controller.state

    def want(self, wanted: Content, change: str | None = None, source: str = "set.yaml") -> None:
        """Want a model set, as ``serve deploy`` does; ``change`` sets it apart from the same set later."""
        event = ev.Wanted(at=self.clock.wall(), change=change or wanted.digest, source=source, content=wanted)
        self.controller.post(event)

    async def until(self, condition: Callable[[ControlState], bool], seconds: float = 600.0) -> None:
        """Return once the state is so. Raises TimeoutError after so many virtual seconds.

        Raises the error that the manager has ended with, if it has.
        """
        async with asyncio.timeout(seconds):
            while not condition(self.state):
                if self._managing is not None and self._managing.done():
                    self._managing.result()
                await asyncio.sleep(_POLL_SECONDS)

    async def until_live(self, wanted: Content, seconds: float = 600.0) -> None:
        """Return once a model set is live, and all gateways that take requests route by it."""
        await self.until(lambda state: _is_live(state, wanted), seconds)
        await self.until(is_acknowledged, seconds)


def _latencies(network: Network | None, gateways: int, seed: int) -> list[Callable[[], float] | None]:
    if network is None:
        return [None] * gateways
    slow = network.slow(gateways)
    return [network.latency(f"{seed}/{number}", slow=number in slow) for number in range(gateways)]


def _is_live(state: ControlState, content: Content) -> bool:
    live = state.live
    return live is not None and live.content.digest == content.digest


def is_acknowledged(state: ControlState) -> bool:
    """Say whether every gateway that is waited for routes by the live release."""
    return state.live is not None and state.acknowledgement_of(state.live).last is not None
