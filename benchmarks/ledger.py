"""What metering costs: reserving a request's worst case and settling it, beside the same load without.

Requests are simulated: each reserves, works for a fixed time, and settles two hops. So many are always
in flight; what varies is what the store takes.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.parts.local_postgresql import local_postgresql
from benchmarks.parts.output import ReportPath, write
from benchmarks.parts.report import provenance, spread
from benchmarks.parts.samples import percentile
from runtime.clock import SystemClock
from runtime.core.budgets.budget import Amount, Cap, Per, Unit, Window
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import Usage
from runtime.errors import CommandError
from runtime.serve.garbage import leave_startup_alone
from runtime.store.asynchronous.budgets import BatchedBudgets
from runtime.store.asynchronous.ledger import GroupCommit
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from runtime.traffic.ledger import LedgerPort, NoLedger
from runtime.walking.reservations import BudgetPort, NoBudgets, Reservations

_ENDLESS = 10**15
_TENANTS = 8

app = typer.Typer(add_completion=False)
console = Console()


@dataclass
class Load:
    """Requests that are always in flight, and how long each took to reserve and to settle."""

    budgets: BudgetPort
    ledger: LedgerPort
    work_s: float
    reserve_ms: list[float] = field(default_factory=list)
    settle_ms: list[float] = field(default_factory=list)

    async def run(self, requests: int, in_flight: int) -> float:
        """Make all requests; return how many there were per second."""
        numbers, begun = iter(range(requests)), time.perf_counter()
        await asyncio.gather(*(self._follow(numbers, position / in_flight) for position in range(in_flight)))
        return requests / (time.perf_counter() - begun)

    async def _follow(self, numbers: Iterator[int], phase: float) -> None:
        chance = random.Random(phase)  # noqa: S311 - spreads requests, guards nothing
        await asyncio.sleep(phase * self.work_s)
        for number in numbers:
            await self._one(number, self.work_s * chance.uniform(0.8, 1.2))

    async def _one(self, number: int, seconds: float) -> None:
        clock, name = SystemClock(), f"{id(self)}-{number}"
        tenant = f"tenant-{number % _TENANTS}"
        tag = HopTag(
            "", request=name, tenant=tenant, key=f"key-{tenant}", chain="agent", admitted=clock.wall()
        )
        begun = time.perf_counter()
        hold = Reservations(self.budgets, clock, tag, 60.0)
        await hold.find_caps()
        await hold.begin(Amount(500))
        reserved = time.perf_counter()
        await asyncio.sleep(seconds)
        ended = time.perf_counter()
        await self.ledger.write(two_hops(tag), hold.names)
        self.reserve_ms.append((reserved - begun) * 1000.0)
        self.settle_ms.append((time.perf_counter() - ended) * 1000.0)


def two_hops(tag: HopTag) -> list[LedgerRow]:
    """Return the rows of a request of two hops; ``tag`` says of it what both do."""
    tags = (
        tag._replace(hop=f"{tag.request}-{hop}", step=step, engine="0" * 64, started=tag.admitted)
        for hop, step in enumerate(("triage", "answer"))
    )
    return [LedgerRow(each, Usage(120, 60), Outcome.OK, 1.0, 20.0, 100.0) for each in tags]


@app.command()
def main(
    requests: Annotated[int, typer.Option(help="Requests of one repetition.")] = 4000,
    in_flight: Annotated[int, typer.Option(help="Requests that are always in flight.")] = 64,
    work_ms: Annotated[float, typer.Option(help="What a request takes without the ledger.")] = 400.0,
    repetitions: Annotated[int, typer.Option(help="How often each is measured, in turn.")] = 5,
    postgresql: Annotated[
        str | None,
        typer.Option(help="URL of an empty PostgreSQL; default: one is started, if that is installed."),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="2 repetitions of 1000 requests.")] = False,  # noqa: FBT002 - typer's form
    report: ReportPath = None,
) -> None:
    """Print what reserving and settling take on each store, and what they cost in throughput."""
    if short:
        requests, repetitions = min(requests, 1000), min(repetitions, 2)
    with tempfile.TemporaryDirectory() as folder, _postgresql(postgresql) as server:
        stores = {"sqlite": f"sqlite:///{folder}/store.db", **({"postgresql": server} if server else {})}
        result = {
            name: _measure(url, requests, in_flight, work_ms / 1000.0, repetitions)
            for name, url in stores.items()
        }
    told: dict[str, Any] = {
        "config": {
            "requests": requests,
            "in_flight": in_flight,
            "work_ms": work_ms,
            "repetitions": repetitions,
        },
        "stores": result,
        **provenance(),
    }
    console.print(_table(told))
    write(console, told, report)


@contextmanager
def _postgresql(url: str | None) -> Iterator[str | None]:
    """Start a PostgreSQL in a folder of its own unless one is named; None if none can be started."""
    if url is not None:
        yield url
        return
    with ExitStack() as running:
        try:
            server = running.enter_context(local_postgresql())
        except ImportError:
            yield None
            return
        yield server.get_uri()


def _measure(url: str, requests: int, in_flight: int, work_s: float, repetitions: int) -> dict[str, Any]:
    """Measure with and without the ledger in turn, so that both meet the same machine."""
    leave_startup_alone()  # as gateways do
    clock = SystemClock()
    engine = open_store(url, survives_power_cut=False)
    budgets = Budgets(engine, clock)
    for tenant in range(_TENANTS):
        for per in (Per.TENANT, Per.KEY):
            budgets.set(Cap(0, f"tenant-{tenant}", "", per, Unit.TOKENS, Window.DAY, _ENDLESS))
    with ThreadPoolExecutor(max_workers=1) as thread:

        def metered() -> Load:
            book = GroupCommit(Ledger(engine, budgets), thread)
            return Load(BatchedBudgets(budgets, thread), book, work_s)

        rounds = [
            _round(metered, lambda: Load(NoBudgets(), NoLedger(), work_s), requests, in_flight)
            for _ in range(repetitions)
        ]
    engine.dispose()
    return {"rounds": rounds, "ratio": median(each["ratio"] for each in rounds)}


def _round(
    metered: Callable[[], Load], bare: Callable[[], Load], requests: int, in_flight: int
) -> dict[str, Any]:
    with_ledger, without = metered(), bare()
    rate = asyncio.run(with_ledger.run(requests, in_flight))
    bare_rate = asyncio.run(without.run(requests, in_flight))
    both = [a + b for a, b in zip(with_ledger.reserve_ms, with_ledger.settle_ms, strict=True)]
    return {
        "per_second": round(rate, 1),
        "per_second_without": round(bare_rate, 1),
        "ratio": round(rate / bare_rate, 4),
        "reserve_ms": _summary(with_ledger.reserve_ms),
        "settle_ms": _summary(with_ledger.settle_ms),
        "reserve_and_settle_ms": _summary(both),
    }


def _summary(samples: list[float]) -> dict[str, float]:
    return {
        name: round(percentile(samples, share) or 0.0, 3)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _table(told: dict[str, Any]) -> Table:
    config = told["config"]
    title = f"{config['in_flight']} in flight, {config['repetitions']} repetitions: median (least to most)"
    table = Table("store", "reserve and settle ms, p50", "p99", "throughput to without", title=title)
    for name, result in told["stores"].items():
        rounds = result["rounds"]
        cells = (
            spread([each["reserve_and_settle_ms"][share] for each in rounds], 3) for share in ("p50", "p99")
        )
        table.add_row(name, *cells, spread([each["ratio"] for each in rounds], 3))
    return table


if __name__ == "__main__":
    try:
        app()
    except CommandError as error:
        console.print(f"[red]error:[/red] {error}")
        raise SystemExit(1) from error
