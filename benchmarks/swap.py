"""Cutovers under load, one after the other: how long they take, and what they do to requests and streams.

Two releases are resident; each swap is a rollback to the one that is not live, so its engines wake and
are probed first, and nothing is loaded. Streams run all the time; short requests arrive open-loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import httpx
import orjson
import typer
import yaml
from rich.console import Console

from benchmarks.parts.local_cluster import LocalCluster, free_port, interlock_application
from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.output import PicturePath, ReportPath, write
from benchmarks.parts.report import is_mixed, provenance, release_of, summary_of
from benchmarks.parts.samples import percentile
from benchmarks.parts.swap_view import plot, swap_table
from runtime.errors import CommandError, InterlockError
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
MODEL = "agent"
_READY_S = 120.0
_SETTLE_S = 1.0
"""Time after a command in which nothing is asked: a benchmark that polls would measure its own polls."""

_QUIET_S = 3.0
"""Time before every other swap, longer than a stream: streams that span none are the measure of the others.

The swaps in between follow at once, while streams still drain.
"""

_PART_S = 0.2
"""Of the picture: it shows the longest time between tokens in each part of the run that is so long."""

_TOKENS = 40
"""Tokens of each stream, 40 ms apart on the scripted engines."""

app = typer.Typer(add_completion=False)
console = Console()


@dataclass(frozen=True)
class Swap:
    """One cutover by a rollback."""

    begun: float
    """When the command was sent, in this process's ``perf_counter`` seconds."""
    rollback_ms: float
    """From the command until the last gateway's acknowledgement."""
    from_standby: bool
    """Whether engines had to wake and be probed; else the release was draining still."""
    admission_gap_ms: float
    """The longest time for which it kept a gateway from admitting, as gateways measured it."""
    skew_ms: float
    """Between the first and the last gateway's acknowledgement."""

    @property
    def ended(self) -> float:
        """When the last gateway acknowledged, in this process's ``perf_counter`` seconds."""
        return self.begun + self.rollback_ms / 1000.0


@dataclass
class Streams:
    """Streams that follow each other, and when their chunks arrived."""

    url: str
    model: str
    tokens: int
    arrivals: list[list[float]] = field(default_factory=list)
    """For each stream, when its chunks came, in ``perf_counter`` seconds."""
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
        arrivals: list[float] = []
        done = False
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status != httpx.codes.OK:
                self.errors.append(f"HTTP {response.status}: {(await response.text())[:200]}")
                return
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                done = done or line.startswith(b"data: [DONE]")
                if not done and b'"usage"' not in line:
                    arrivals.append(time.perf_counter())
                if b'"error"' in line:
                    self.errors.append(str(orjson.loads(line[6:])["error"]["message"]))
        self.arrivals.append(arrivals)
        if not done:
            self.errors.append("a stream ended without [DONE]")


@app.command()
def main(
    swaps: Annotated[int, typer.Option(help="Cutovers to make.")] = 50,
    gateways: Annotated[int, typer.Option(help="Gateway replicas of the local cluster.")] = 4,
    streams: Annotated[int, typer.Option(help="Streams that are always open.")] = 4,
    rate: Annotated[float, typer.Option(help="Short requests per second.")] = 4.0,
    model: Annotated[str, typer.Option(help="The chain to ask.")] = MODEL,
    address: Annotated[
        str | None, typer.Option(help="A running Interlock with two resident releases; default: a local one.")
    ] = None,
    report: ReportPath = None,
    picture: PicturePath = None,
) -> None:
    """Cut over to and fro under load; print admission gaps, inter-token gaps and times as a table.

    Exit 1 when a request failed or an answer mixed two releases.
    """
    try:
        with _deployed(address, gateways) as url:
            result = asyncio.run(_measure(url, model, swaps, streams, rate))
    except InterlockError as error:
        console.print(f"[red]error:[/red] {error}")
        raise typer.Exit(1) from error
    result["config"] = {"swaps": swaps, "gateways": gateways, "streams": streams, "rate": rate}
    console.print(swap_table(result))
    write(console, result, report, picture, plot)
    if result["failed"] or result["mixed"]:
        raise typer.Exit(1)


# -- what is measured -----------------------------------------------------------------------------


async def _measure(url: str, model: str, count: int, streams: int, rate: float) -> dict[str, Any]:
    spans = Streams(url, model, _TOKENS)
    plan = Plan(url, model, ["my bill", "the app crashes"], rate=rate, stream_share=0.0, max_tokens=1)
    load, stopping, begun = LoadGenerator(plan), asyncio.Event(), time.perf_counter()
    async with (
        httpx.AsyncClient(base_url=url, headers=_admin(), timeout=30.0, trust_env=False) as http,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(spans.run(streams, stopping))
        tasks.create_task(load.run())
        try:
            made = [await _cut_over(http, number, count) for number in range(count)]
        finally:
            load.stop()
            stopping.set()
        status = (await http.get("/admin/v1/status")).json()
    failed = [record.error for record in load.records if record.error is not None] + spans.errors
    return {
        "failed": len(failed),
        "mixed": sum(is_mixed(record, status) for record in load.records if record.error is None),
        "requests": len(load.records) + len(spans.arrivals),
        "errors": sorted(set(failed))[:10],
        "swaps": [told(swap, begun) for swap in made],
        "inter_token_ms": _inter_token(spans.arrivals, made),
        "longest_gaps": longest_gaps(spans.arrivals, begun),
        **provenance(),
    }


def told(swap: Swap, begun: float) -> dict[str, Any]:
    """Return a swap as a report has it: ``begun_s`` are the seconds since the load began."""
    row = asdict(swap)
    return {"begun_s": round(row.pop("begun") - begun, 3), **row}


def _admin() -> dict[str, str]:
    key = Settings().admin_key
    return {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}


async def _cut_over(http: httpx.AsyncClient, position: int, count: int) -> Swap:
    """Roll back and look, when it is over, how long it took.

    The manager's clock says how long it took from its taking the command to the last acknowledgement;
    this one's, how long the command took until it was answered. The sum is an upper bound.
    """
    await asyncio.sleep(0.0 if position % 2 else _QUIET_S)
    begun = time.perf_counter()
    answer = await http.post("/admin/v1/releases/rollback", headers={"if-match": "*"})
    answered = time.perf_counter()
    if answer.is_error:
        raise CommandError(f"rollback {position + 1} of {count} was refused: {answer.text[:300]}")
    before = answer.json()
    number = before["wanted"]["release"]
    await asyncio.sleep(_SETTLE_S)
    status = await _until_acknowledged(http, number)
    audit = (await http.get("/admin/v1/audit", params={"limit": 1})).json()["entries"][0]
    release = release_of(status, number)
    seconds = answered - begun + release["acknowledged"] - audit["at"]
    return Swap(
        begun=begun,
        rollback_ms=seconds * 1000.0,
        from_standby=release_of(before, number)["state"] == "standby",
        admission_gap_ms=max(gateway["cutover_ms"] for gateway in status["gateways"]),
        skew_ms=(release["acknowledged"] - release["first_acknowledged"]) * 1000.0,
    )


async def _until_acknowledged(http: httpx.AsyncClient, number: int) -> dict[str, Any]:
    end = time.perf_counter() + _READY_S
    while time.perf_counter() < end:
        status: dict[str, Any] = (await http.get("/admin/v1/status")).json()
        if status["live"] == number and release_of(status, number)["acknowledged"] is not None:
            return status
        await asyncio.sleep(0.1)
    raise CommandError(f"release {number} was not acknowledged within {_READY_S:g} s")


def _inter_token(streams: Sequence[Sequence[float]], swaps: Sequence[Swap]) -> dict[str, Any]:
    """Return the gaps of streams that a cutover fell into, of those without one, and within a cutover.

    A cutover lasts from the command to the last acknowledgement.
    """
    spanning: list[float] = []
    without: list[float] = []
    within: list[float] = []
    for arrivals in streams:
        gaps = [(end - begin) * 1000.0 for begin, end in pairwise(arrivals)]
        met = any(swap.begun < arrivals[-1] and swap.ended > arrivals[0] for swap in swaps)
        (spanning if met else without).extend(gaps)
        within.extend(
            gap
            for gap, (begin, end) in zip(gaps, pairwise(arrivals), strict=True)
            if any(begin < swap.ended and end > swap.begun for swap in swaps)
        )
    high, base = percentile(spanning, 0.99), percentile(without, 0.99)
    return {
        "spanning": summary_of(spanning),
        "without": summary_of(without),
        "within_cutover": summary_of(within),
        "ratio_p99": round(high / base, 3) if high and base else None,
    }


def longest_gaps(streams: Sequence[Sequence[float]], begun: float) -> list[tuple[float, float]]:
    """Return the longest time between tokens of any stream, in ms, in each ``_PART_S`` with its begin.

    Streams are the arrivals of their chunks; a gap is of the part in which it ended. For a picture: all gaps
    would be twenty times as many.
    """
    longest: dict[int, float] = {}
    for begin, end in (gap for arrivals in streams for gap in pairwise(arrivals)):
        part = int((end - begun) / _PART_S)
        longest[part] = max(longest.get(part, 0.0), (end - begin) * 1000.0)
    return [(round(part * _PART_S, 1), round(longest[part], 2)) for part in sorted(longest)]


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
        application = interlock_application(str(self._set_path(version)), self._gateways)
        config = {"http_options": {"host": "127.0.0.1", "port": self._port}, "applications": [application]}
        self._cluster.put(config)


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
