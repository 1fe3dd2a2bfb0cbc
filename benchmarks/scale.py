"""How the control plane scales: many gateways, engines, releases and sessions, without a cluster.

Gateways and engines are simulated around the real control code, in virtual time (``simulation``): what a
cutover takes is the time of its messages and waits. What the code itself takes is measured as CPU time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.console import Console

from benchmarks.ledger import two_hops
from benchmarks.parts.output import PicturePath, ReportPath, write
from benchmarks.parts.report import provenance
from benchmarks.parts.scale_view import plot, tables
from benchmarks.parts.simulation import CHAIN, Simulation, model_set
from runtime.clock import SystemClock
from runtime.core.budgets.budget import Amount, Cap, CapKind, Per, Unit, Window
from runtime.core.metering.ledger import HopTag
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import GIB, Device
from runtime.core.requests.ask import Ask
from runtime.core.swap import planning
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState
from runtime.engines.chunks import text_of
from runtime.errors import InterlockError, NoLiveRelease
from runtime.store.asynchronous.budgets import BatchedBudgets
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from runtime.testing.inline import InlineExecutor
from runtime.testing.network import Network
from runtime.testing.virtual_time import run
from runtime.testing.world import is_acknowledged
from runtime.walking.context import RequestContext
from runtime.walking.reservations import Reservations

_QUIET_S = 5.0
"""Virtual seconds of load before each cutover."""

_AFTER_S = 20.0
"""Virtual seconds after a cutover's last acknowledgement: a gateway that was left behind is back by then."""

_LOOK_S = 0.1
"""How often it is looked which gateways are out of readiness."""

_REST_S = 10.0
"""Virtual seconds of heartbeats by which the cost of a report is measured."""

SCENARIOS: dict[str, tuple[Network, dict[str, Any]]] = {
    "all gateways alike": (Network(), {}),
    "1 % slow, 100 times": (Network(slow_share=0.01), {}),
    "1 % do not get the table for 12 s": (Network(slow_share=0.01, stall=12.0), {}),
    "sleep_live, 1 % slow": (Network(slow_share=0.01), {"strategy": "sleep_live"}),
}
"""The networks, and how the model sets differ."""

GRID = [(4, 2, 4), (64, 2, 4), (256, 2, 4), (256, 8, 16), (4, 2, 100), (4, 2, 1000), (4, 8, 1000)]
"""Gateways, resident releases, and engines of all releases together."""

app = typer.Typer(add_completion=False)
console = Console()


# -- cutovers -------------------------------------------------------------------------------------


@dataclass
class Clients:
    """Requests that arrive open loop at gateways drawn by lot, in virtual time."""

    simulation: Simulation
    rate: float
    chance: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    waited_ms: list[float] = field(default_factory=list)
    """Of each request that was not admitted at once."""
    errors: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Send requests until cancelled, then wait for the open ones."""
        sent: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self.chance.expovariate(self.rate))
                task = asyncio.create_task(self._one())
                sent.add(task)
                task.add_done_callback(sent.discard)
        finally:
            await asyncio.gather(*sent)

    async def _one(self) -> None:
        admission = self.chance.choice(self.simulation.gateways).admission
        ask = Ask(CHAIN, [{"role": "user", "content": "a question"}])
        begun = self.simulation.clock.now()
        try:
            call = await admission.admit(ask, RequestContext("", begun))
            waited = self.simulation.clock.now() - begun
            if waited > 0.0:
                self.waited_ms.append(waited * 1000.0)
            try:
                await call.start()
                said = "".join([text_of(chunk) async for chunks in call.chunks() for chunk in chunks])
            finally:
                await call.aclose()
        except NoLiveRelease:
            self.outcomes["refused"] += 1
            return
        except InterlockError as error:
            self.outcomes["failed"] += 1
            self.errors[type(error).__name__] += 1
            return
        own = {digest[:SHORT] for digest in call.release.engines.values()}
        mixed = not said or any(hop.engine not in own for hop in call.hops)
        self.outcomes["mixed" if mixed else "ok"] += 1


@dataclass
class Readiness:
    """For how long gateways were out of readiness, looked at time and again."""

    simulation: Simulation
    seconds: Counter[str] = field(default_factory=Counter)
    lagging: set[str] = field(default_factory=set)
    """Gateways that the manager did not wait for any longer."""

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            for gateway in self.simulation.gateways:
                if gateway.follower.fenced:
                    self.seconds[gateway.name] += 1
            self.lagging |= self.simulation.state.lagging
            await asyncio.sleep(_LOOK_S)


async def cutovers(scenario: str, gateways: int, count: int, rate: float, seed: int) -> dict[str, Any]:
    """Cut over ``count`` times between two resident releases under load; return what came of it."""
    network, changes = SCENARIOS[scenario]
    async with Simulation(gateways, network, seed) as simulation:
        for version in (1, 2):
            await simulation.bring_up(model_set("scale", 2, version, **changes))
        clients = Clients(simulation, rate, random.Random(seed))  # noqa: S311 - arrivals, not secrets
        load = asyncio.create_task(clients.run())
        try:
            made = [await _cut_over(simulation) for _ in range(count)]
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
    return {
        "slow": sorted(f"gateway-{number}" for number in simulation.slow),
        "cutovers": made,
        "requests": dict(clients.outcomes),
        "waited_ms": [round(waited, 1) for waited in clients.waited_ms],
        "errors": dict(clients.errors),
    }


async def _cut_over(simulation: Simulation) -> dict[str, Any]:
    await asyncio.sleep(_QUIET_S)
    readiness = Readiness(simulation)
    watching = asyncio.create_task(readiness.watch())
    simulation.let_polls_hang(hang=True)
    before, events = simulation.cpu_seconds, simulation.controller.events
    await simulation.roll_back()
    await simulation.until(is_acknowledged)
    cpu, came = simulation.cpu_seconds - before, simulation.controller.events - events
    await asyncio.sleep(_AFTER_S)
    simulation.let_polls_hang(hang=False)
    watching.cancel()
    live = simulation.state.live
    assert live is not None  # noqa: S101 - one has just gone live
    last = simulation.state.acknowledgement_of(live).last
    assert last is not None  # noqa: S101 - it was waited for
    return {
        "acknowledged_ms": [
            round(seconds * 1000.0, 1) for seconds in sorted(simulation.acknowledgements().values())
        ],
        "manager_waited_ms": round((last - live.entered[ReleaseState.LIVE]) * 1000.0, 1),
        "not_waited_for": sorted(readiness.lagging),
        "out_of_readiness_s": {name: round(n * _LOOK_S, 1) for name, n in readiness.seconds.items()},
        "controller_cpu_ms": round(cpu * 1000.0, 2),
        "events": came,
    }


# -- the controller's own cost --------------------------------------------------------------------


async def control_cost(cell: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Return what the controller's loop takes of CPU: to bring a release up, at rest, at a cutover."""
    gateways, releases, engines = cell
    async with Simulation(gateways, seed=seed) as simulation:
        for version in range(1, releases + 1):
            before = _spent(simulation)
            await simulation.bring_up(model_set("scale", max(1, engines // releases), version))
            bring_up = _since(simulation, before)
        await asyncio.sleep(_REST_S)  # the standbys' engines go to sleep meanwhile
        before = _spent(simulation)
        await asyncio.sleep(_REST_S)
        rest = _since(simulation, before)
        before = _spent(simulation)
        await simulation.roll_back()
        await simulation.until(is_acknowledged)
        cutover = _since(simulation, before)
    return {
        "gateways": gateways,
        "releases": releases,
        "engines": engines,
        "bring_up": bring_up,
        "at_rest": rest,
        "cutover": cutover,
    }


def _spent(simulation: Simulation) -> tuple[float, int]:
    return simulation.cpu_seconds, simulation.controller.events


def _since(simulation: Simulation, before: tuple[float, int]) -> dict[str, float]:
    cpu, events = _spent(simulation)
    seconds, came = cpu - before[0], events - before[1]
    return {
        "cpu_ms": round(seconds * 1000.0, 2),
        "events": came,
        "us_per_event": round(seconds * 1e6 / max(1, came), 1),
    }


def planned(engines: int, repetitions: int) -> dict[str, Any]:
    """Return what laying out so many new engines takes, on a device for every four of them."""
    content = model_set("scale", engines)
    devices = [
        Device(id=f"node-{n}", kind="cpu", total=80 * GIB, free=80 * GIB) for n in range(engines // 4 + 1)
    ]
    samples = []
    for _ in range(repetitions):
        begun, cpu = time.perf_counter(), time.thread_time()
        plan = planning.plan(content, ControlState(), devices)
        samples.append([(time.perf_counter() - begun) * 1000.0, (time.thread_time() - cpu) * 1000.0])
    return {
        "engines": engines,
        "devices": len(devices),
        "fits": plan.fits,
        "wall_and_cpu_ms": [[round(value, 3) for value in sample] for sample in samples],
    }


# -- sessions -------------------------------------------------------------------------------------


async def sessions(count: int, turns: int, seed: int) -> dict[str, Any]:
    """Reserve and settle ``turns`` turns of ``count`` sessions, mingled; return CPU per turn as they grow.

    No chain is walked: the tags are made here; budgets, holds and ledger are the gateway's own, on SQLite
    in memory, one turn in each transaction.
    """
    clock, store = SystemClock(), open_store("sqlite://")
    budgets = Budgets(store, clock)
    budgets.set(Cap(0, "tenant", "", Per.TENANT, Unit.TOKENS, Window.DAY, 10**15))
    budgets.set(Cap(0, "tenant", "", Per.SESSION, Unit.TOKENS, Window.TOTAL, 10**6, CapKind.BUDGET))
    ledger, port = Ledger(store, budgets), BatchedBudgets(budgets, InlineExecutor())
    order = [f"session-{n}" for n in range(count)] * turns
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    samples = []
    for part in _parts(order, 10):
        begun = time.thread_time()
        for number, session in part:
            await _turn(number, session, ledger, port)
        samples.append(round((time.thread_time() - begun) * 1e6 / max(1, len(part)), 1))
    size = _size(store)
    ledger.close()
    return {"sessions": count, "turns": len(order), "us_per_turn_by_tenth": samples, "store_bytes": size}


async def _turn(number: int, session: str, ledger: Ledger, budgets: BatchedBudgets) -> None:
    clock = SystemClock()
    tag = HopTag(
        *("", f"r{number}"), tenant="tenant", key="key", session=session, chain=CHAIN, admitted=clock.wall()
    )
    hold = Reservations(budgets, clock, tag, 60.0)
    await hold.find_caps()
    await hold.begin(Amount(500))
    ledger.write(two_hops(tag), hold.names)


def _parts(order: Sequence[str], count: int) -> Iterator[list[tuple[int, str]]]:
    numbered = list(enumerate(order))
    size = max(1, len(numbered) // count)
    yield from (numbered[begin : begin + size] for begin in range(0, size * count, size))


def _size(store: sa.Engine) -> int:
    with store.connect() as connection:
        pages, each = (
            connection.exec_driver_sql(f"pragma {name}").scalar_one() for name in ("page_count", "page_size")
        )
    return int(pages) * int(each)


# -- the program ----------------------------------------------------------------------------------


@app.command()
def main(
    gateways: Annotated[int, typer.Option(help="Gateways that cut over.")] = 256,
    count: Annotated[int, typer.Option("--cutovers", help="Cutovers in each network.")] = 10,
    rate: Annotated[float, typer.Option(help="Requests per second, over all gateways.")] = 100.0,
    engines: Annotated[int, typer.Option(help="Engines that are planned at most.")] = 1000,
    session_count: Annotated[int, typer.Option("--sessions", help="Sessions at most.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of latencies, arrivals and orders.")] = 1,
    short: Annotated[bool, typer.Option("--short", help="2 cutovers, and a tenth of the sessions.")] = False,  # noqa: FBT002 - typer's form
    report: ReportPath = None,
    picture: PicturePath = None,
) -> None:
    """Simulate cutovers, plans and sessions by the thousand; print what they take."""
    logging.disable(logging.ERROR)  # what is put out of readiness here is so on purpose
    if short:
        count, session_count = min(count, 2), session_count // 10
    grid = [cell for cell in GRID if cell[0] <= gateways and cell[2] <= engines]
    grid = grid[:5] if short else grid
    config = {"gateways": gateways, "cutovers": count, "rate": rate, "engines": engines}
    result: dict[str, Any] = {"config": {**config, "sessions": session_count}, "seed": seed}
    result["scenarios"] = {
        name: run(cutovers(name, gateways, count, rate, seed)) for name in _told("cutovers", SCENARIOS)
    }
    result["control"] = [run(control_cost(cell, seed)) for cell in _told("control", grid)]
    result["planning"] = [planned(n, 5) for n in _told("planning", (10, 100, engines))]
    result["sessions"] = [
        asyncio.run(sessions(n, 2, seed)) for n in _told("sessions", (session_count // 10, session_count))
    ]
    result |= provenance()
    for table in tables(result):
        console.print(table)
    write(console, result, report, picture, plot)
    failed = sum(
        each["requests"].get(bad, 0) for each in result["scenarios"].values() for bad in ("failed", "mixed")
    )
    if failed:
        console.print(f"[red]error:[/red] {failed} requests failed or mixed two releases")
        raise typer.Exit(1)


def _told(what: str, items: Any) -> Iterator[Any]:
    """Yield ``items``, and show on a terminal which one is being measured."""
    for item in items:
        with console.status(f"{what}: {item}"):
            yield item


if __name__ == "__main__":
    app()
