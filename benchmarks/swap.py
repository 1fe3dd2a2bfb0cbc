"""Cutovers under load, one after the other: how long they take, and what they do to requests and streams.

Two releases are resident; each swap is a rollback to the one that is not live, so its engines wake and
are probed first, and nothing is loaded. Streams run all the time; short requests arrive open-loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import httpx
import orjson
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.load import LoadGenerator, Plan, percentile
from benchmarks.local_cluster import LocalCluster, free_port
from benchmarks.report import is_mixed, versions
from runtime.errors import CommandError, InterlockError

ROOT = Path(__file__).resolve().parent.parent
MODEL = "agent"
_READY_S = 120.0
_QUIET_S = 1.0
"""Pause between two cutovers, in which the streams' gaps without a swap are measured."""

app = typer.Typer(add_completion=False)
console = Console()


@dataclass
class Swap:
    """One cutover; times are ``perf_counter`` seconds of this process."""

    release: int
    asked: float
    acknowledged: float = 0.0
    cutover_ms: float = 0.0
    """The longest time for which it kept a gateway from admitting, as gateways measured it."""
    skew_ms: float = 0.0
    """Between the first and the last gateway's acknowledgement."""


@dataclass
class Streams:
    """Streams that follow each other, and when their chunks arrived."""

    url: str
    model: str
    tokens: int
    gaps: list[tuple[float, float]] = field(default_factory=list)
    """(begin, end) of each time between two chunks of one stream."""
    errors: list[str] = field(default_factory=list)

    async def run(self, count: int, stopping: asyncio.Event) -> None:
        """Keep ``count`` streams open until ``stopping`` is set."""
        timeout = aiohttp.ClientTimeout(total=120)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for position in range(count):
                tasks.create_task(self._follow(session, stopping, position / count))

    async def _follow(self, session: aiohttp.ClientSession, stopping: asyncio.Event, delay: float) -> None:
        await asyncio.sleep(delay)
        while not stopping.is_set():
            try:
                await self._one(session)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    async def _one(self, session: aiohttp.ClientSession) -> None:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "tell me a long story"}],
            "max_tokens": self.tokens,
            "stream": True,
        }
        last, done = 0.0, False
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status != httpx.codes.OK:
                self.errors.append(f"HTTP {response.status}: {(await response.text())[:200]}")
                return
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                now = time.perf_counter()
                if last:
                    self.gaps.append((last, now))
                last, done = now, done or line.startswith(b"data: [DONE]")
                if b'"error"' in line:
                    self.errors.append(str(orjson.loads(line[6:])["error"]["message"]))
        if not done:
            self.errors.append("a stream ended without [DONE]")


@app.command()
def main(
    swaps: Annotated[int, typer.Option(help="Cutovers to make.")] = 50,
    gateways: Annotated[int, typer.Option(help="Gateway replicas of the local cluster.")] = 4,
    streams: Annotated[int, typer.Option(help="Streams that are always open.")] = 6,
    rate: Annotated[float, typer.Option(help="Short requests per second.")] = 20.0,
    model: Annotated[str, typer.Option(help="The chain to ask.")] = MODEL,
    address: Annotated[
        str | None, typer.Option(help="A running Interlock with two resident releases; default: a local one.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
) -> None:
    """Cut over to and fro under load; print admission gaps, inter-token gaps and times as a table."""
    try:
        with _deployed(address, gateways) as url:
            result = asyncio.run(_measure(url, model, swaps, streams, rate))
    except InterlockError as error:
        console.print(f"[red]error:[/red] {error}")
        raise typer.Exit(1) from error
    result["config"] = {"swaps": swaps, "gateways": gateways, "streams": streams, "rate": rate}
    console.print(_table(result))
    if report is not None:
        report.write_text(json.dumps(result) + "\n")
        console.print(f"report written to {report}", highlight=False)
    if result["failed"] or result["mixed"]:
        raise typer.Exit(1)


# -- what is measured -----------------------------------------------------------------------------


async def _measure(url: str, model: str, count: int, streams: int, rate: float) -> dict[str, Any]:
    spans = Streams(url, model, tokens=100)
    plan = Plan(url, model, ["my bill", "the app crashes"], rate=rate, stream_share=0.0, max_tokens=1)
    load, stopping = LoadGenerator(plan), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(spans.run(streams, stopping))
        tasks.create_task(load.run())
        try:
            await asyncio.sleep(2 * _QUIET_S)
            made = [await _cut_over(url, number, count) for number in range(count)]
        finally:
            load.stop()
            stopping.set()
    async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as http:
        status = (await http.get("/admin/v1/status")).json()
    failed = [record.error for record in load.records if record.error is not None] + spans.errors
    return {
        "failed": len(failed),
        "mixed": sum(is_mixed(record, status) for record in load.records if record.error is None),
        "requests": len(load.records),
        "errors": sorted(set(failed))[:10],
        "rollback_ms": [(swap.acknowledged - swap.asked) * 1000.0 for swap in made],
        "admission_gap_ms": [swap.cutover_ms for swap in made],
        "skew_ms": [swap.skew_ms for swap in made],
        "inter_token_ms": _inter_token(spans.gaps, made),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
    }


async def _cut_over(url: str, position: int, count: int) -> Swap:
    """Roll back and wait until the last gateway has acknowledged, then be quiet for a while."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as http:
        swap = Swap(0, time.perf_counter())
        answer = await http.post("/admin/v1/releases/rollback", headers={"if-match": "*"})
        if answer.is_error:
            raise CommandError(f"rollback {position + 1} of {count} was refused: {answer.text[:300]}")
        swap.release = answer.json()["wanted"]["release"]
        status = await _until_acknowledged(http, swap.release)
        swap.acknowledged = time.perf_counter()
        await asyncio.sleep(_QUIET_S)
        status = (await http.get("/admin/v1/status")).json()
    release = next(r for r in status["releases"] if r["number"] == swap.release)
    swap.cutover_ms = max(gateway["cutover_ms"] for gateway in status["gateways"])
    swap.skew_ms = (release["acknowledged"] - release["first_acknowledged"]) * 1000.0
    return swap


async def _until_acknowledged(http: httpx.AsyncClient, number: int) -> dict[str, Any]:
    end = time.perf_counter() + _READY_S
    while time.perf_counter() < end:
        status: dict[str, Any] = (await http.get("/admin/v1/status")).json()
        release = next(r for r in status["releases"] if r["number"] == number)
        if status["live"] == number and release["acknowledged"] is not None:
            return status
        await asyncio.sleep(0.02)
    raise CommandError(f"release {number} was not acknowledged within {_READY_S:g} s")


def _inter_token(gaps: list[tuple[float, float]], swaps: list[Swap]) -> dict[str, Any]:
    """Split the gaps into those that touch a cutover, command to last acknowledgement, and the rest."""
    during: list[float] = []
    quiet: list[float] = []
    for begin, end in gaps:
        touched = any(begin < swap.acknowledged and end > swap.asked for swap in swaps)
        (during if touched else quiet).append((end - begin) * 1000.0)
    shown = {"with_swap": _summary(during), "without_swap": _summary(quiet)}
    high, base = shown["with_swap"]["p99"], shown["without_swap"]["p99"]
    return {**shown, "ratio_p99": high / base if high and base else None}


def _summary(samples: list[float]) -> dict[str, Any]:
    return {"count": len(samples)} | {
        name: percentile(samples, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _table(result: dict[str, Any]) -> Table:
    title = f"{len(result['rollback_ms'])} cutovers, {result['requests']} requests"
    table = Table("milliseconds", "p50", "p99", "max", title=title)
    inter = result["inter_token_ms"]
    rows = [
        ("rollback command to last acknowledgement", _summary(result["rollback_ms"])),
        ("admissions kept waiting by the cutover, worst gateway", _summary(result["admission_gap_ms"])),
        ("first to last gateway's acknowledgement", _summary(result["skew_ms"])),
        ("inter-token, during a cutover", inter["with_swap"]),
        ("inter-token, otherwise", inter["without_swap"]),
    ]
    for name, summary in rows:
        table.add_row(
            name,
            *(f"{summary[key]:.2f}" if summary[key] is not None else "-" for key in ("p50", "p99", "max")),
        )
    table.caption = (
        f"{result['failed']} failed, {result['mixed']} mixed; inter-token p99 ratio {inter['ratio_p99']}"
    )
    return table


# -- a local Interlock ----------------------------------------------------------------------------


def _deployed(address: str | None, gateways: int) -> AbstractContextManager[str]:
    return nullcontext(address) if address is not None else _Local(gateways)


class _Local(AbstractContextManager[str]):
    """A local cluster with scripted engines and two resident releases."""

    def __init__(self, gateways: int) -> None:
        self._gateways = gateways
        self._port = free_port()
        self._cluster = LocalCluster(ROOT)

    def __enter__(self) -> str:
        self._cluster.__enter__()
        url = f"http://127.0.0.1:{self._port}"
        try:
            for version in (1, 2):
                self._deploy(version)
                _until_live(url, str(self._set_path(version)))
        except BaseException:
            self._cluster.stop()
            raise
        return url

    def __exit__(self, *exc: object) -> None:
        self._cluster.stop()

    def _set_path(self, version: int) -> Path:
        return self._cluster.folder / f"set-{version}.yaml"

    def _deploy(self, version: int) -> None:
        self._set_path(version).write_text(yaml.safe_dump(_scripted(version)))
        deployments = [
            {"name": "Gateway", "num_replicas": self._gateways},
            {"name": "SwapManager", "user_config": {"model_set": str(self._set_path(version))}},
        ]
        application = {
            "name": "interlock",
            "route_prefix": "/",
            "import_path": "runtime.serve.app:build",
            "deployments": deployments,
        }
        config = {"http_options": {"host": "127.0.0.1", "port": self._port}, "applications": [application]}
        answer = self._cluster.api("PUT", "/api/serve/applications/", config)
        if answer.is_error:
            raise CommandError(f"the deploy was refused: {answer.text[:500]}")


def _until_live(url: str, source: str) -> None:
    end = time.monotonic() + _READY_S
    seen = "nothing answered"
    with httpx.Client(base_url=url, trust_env=False) as http, console.status(f"bringing up {source}"):
        while time.monotonic() < end:
            try:
                answer = http.get("/admin/v1/status")
                seen = answer.text[:500]
                wanted = answer.json()["wanted"] if answer.is_success else None
            except (httpx.TransportError, json.JSONDecodeError) as error:
                wanted, seen = None, str(error)
            if wanted and wanted["source"] == source and wanted["outcome"] == "live":
                return
            time.sleep(0.2)
    raise CommandError(f"{source} was not live within {_READY_S:g} s: {seen}")


def _scripted(version: int) -> dict[str, Any]:
    """Return a set of two scripted engines: fixed times, so that what varies is not theirs."""
    route = {"engine": "router", "choices": {"a": ["bill"], "b": ["bug"]}}
    generate = {"engine": "writer", "prompt": "{{ steps.triage.choice }}"}
    writer = {"kind": "fake", "time_to_first_token": "20ms", "inter_token": "40ms", "tokens": 100}
    return {
        "name": "swap-benchmark",
        "rollback_window": "1h",
        "engines": {
            "router": {"kind": "fake", "time_to_first_token": "2ms"},
            "writer": writer | {"reply": f"v{version}-"},
        },
        "chains": {
            MODEL: {
                "steps": [{"id": "triage", "route": route}, {"id": "answer", "generate": generate}],
                "answer": "answer",
                "samples": [{"messages": [{"role": "user", "content": "my bill"}]}],
            }
        },
    }


if __name__ == "__main__":
    app()
