"""What a hop costs: chains of 1 to 8 hops on scripted engines, beside a bare Serve handle call.

Both are measured in the same run and by the same rule: how long a call took as its caller saw it, less how
long the engine, or the called deployment, says that it took there.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import aiohttp
import httpx
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.parts.local_cluster import LocalCluster, free_port, interlock_application, python_path
from benchmarks.parts.output import PicturePath, ReportPath, blank, error_bars, write
from benchmarks.parts.report import provenance, spread
from benchmarks.parts.samples import percentile
from runtime.errors import CommandError, InterlockError

ROOT = Path(__file__).resolve().parent.parent
HOPS = (1, 2, 4, 8)
BARE = {"bare": "bare Serve handle call", "bare-grpc": "bare Serve handle call, gRPC"}
"""Where the bare calls are under the address, and what they are called in the table."""

_GRPC = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
_READY_S = 180.0
_WARM_S = 2.0
_QUESTION = "word " * 90
_KEPT = 120
"""How many raw samples of each kind and repetition the report keeps: drawn by lot, for its size."""

app = typer.Typer(add_completion=False)
console = Console()


@dataclass
class Samples:
    """What was measured of chains of one length, in milliseconds."""

    hop_ms: list[float] = field(default_factory=list)
    """Of each hop, beyond its engine's own time."""
    chain_ms: list[float] = field(default_factory=list)
    """Of each chain from arrival at the gateway to the answer's end, beyond its engines' own times."""
    client_ms: list[float] = field(default_factory=list)
    """The same from sending to the whole answer, as the client sees it."""
    errors: list[str] = field(default_factory=list)

    def take(self, answer: dict[str, Any], client_ms: float) -> None:
        """Add an answer's own account of its hops."""
        told = answer["interlock"]
        engines = sum(hop["duration_ms"] - hop["queue_ms"] for hop in told["hops"])
        self.hop_ms += [hop["queue_ms"] for hop in told["hops"]]
        self.chain_ms.append(told["latency"]["total_ms"] - engines)
        self.client_ms.append(client_ms - engines)


@dataclass(frozen=True)
class Load:
    """How chains are offered: so many at once, or so many each second."""

    at_once: int
    rate: float | None
    seconds: float


# -- measuring ------------------------------------------------------------------------------------


async def measure(
    address: str, bare: str | None, load: Load, repetitions: int, seed: int
) -> list[dict[str, Any]]:
    """Measure bare calls and chains in turn, so that all meet the same machine; return every repetition."""
    chance = random.Random(seed)  # noqa: S311 - an order, and which samples are kept
    timeout = aiohttp.ClientTimeout(total=120)
    made = []
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await _warm(session, address, bare, load)
        for number in range(repetitions):
            kinds: list[str | int] = [*(BARE if bare is not None else ()), *HOPS]
            chance.shuffle(kinds)
            found: dict[str, Any] = {}
            for kind in kinds:
                with console.status(f"repetition {number + 1} of {repetitions}: {kind}"):
                    if isinstance(kind, int):
                        found[str(kind)] = _of_chains(await _chains(session, address, kind, load), chance)
                    else:
                        found[kind] = _of(await _bare(session, f"{bare}/{kind}", load), chance)
            made.append(found)
    return made


async def _warm(session: aiohttp.ClientSession, address: str, bare: str | None, load: Load) -> None:
    short = Load(load.at_once, load.rate, _WARM_S)
    for name in BARE if bare is not None else ():
        await _bare(session, f"{bare}/{name}", short)
    await _chains(session, address, HOPS[-1], short)


async def _bare(session: aiohttp.ClientSession, url: str, load: Load) -> list[float]:
    params = {"at_once": str(load.at_once), "seconds": str(load.seconds)}
    async with session.get(url, params=params) as response:
        if response.status != httpx.codes.OK:
            raise CommandError(f"{url} answered {response.status}: {(await response.text())[:300]}")
        told: list[float] = (await response.json())["beyond_ms"]
        return told


async def _chains(session: aiohttp.ClientSession, address: str, hops: int, load: Load) -> Samples:
    samples, begun = Samples(), time.perf_counter()
    end = begun + load.seconds

    async def one() -> None:
        await _chain(session, address, hops, samples)

    if load.rate is None:
        await asyncio.gather(*(_in_a_loop(one, end) for _ in range(load.at_once)))
    else:
        await _open(one, load.rate, end)
    if samples.errors:
        raise CommandError(f"{len(samples.errors)} chains of {hops} hops failed: {samples.errors[0]}")
    return samples


async def _in_a_loop(one: Callable[[], Any], end: float) -> None:
    while time.perf_counter() < end:
        await one()


async def _open(one: Callable[[], Any], rate: float, end: float) -> None:
    """Start chains when they are due, whether or not earlier ones have ended."""
    chance = random.Random(rate)  # noqa: S311 - arrivals, not secrets
    due = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one())
            due += chance.expovariate(rate)


async def _chain(session: aiohttp.ClientSession, address: str, hops: int, samples: Samples) -> None:
    body = {"model": f"hops-{hops}", "messages": [{"role": "user", "content": _QUESTION}], "max_tokens": 1}
    sent = time.perf_counter()
    try:
        async with session.post(f"{address}/v1/chat/completions", json=body) as response:
            if response.status != httpx.codes.OK:
                samples.errors.append(f"HTTP {response.status}: {(await response.text())[:300]}")
                return
            answer = json.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        samples.errors.append(f"{type(error).__name__}: {error}")
        return
    samples.take(answer, (time.perf_counter() - sent) * 1000.0)


def _of(samples: Sequence[float], chance: random.Random) -> dict[str, Any]:
    kept = samples if len(samples) <= _KEPT else chance.sample(samples, _KEPT)
    summary = {name: round(percentile(samples, share) or 0.0, 3) for name, share in _SHARES.items()}
    return {"count": len(samples), **summary, "samples": [round(value, 2) for value in kept]}


_SHARES = {"p50": 0.5, "p99": 0.99}


def _of_chains(samples: Samples, chance: random.Random) -> dict[str, Any]:
    return {
        "hop_ms": _of(samples.hop_ms, chance),
        "chain_ms": _of(samples.chain_ms, chance),
        "client_ms": _of(samples.client_ms, chance),
    }


# -- the program ----------------------------------------------------------------------------------


@app.command()
def main(
    at_once: Annotated[int, typer.Option(help="Chains, and bare calls, that are always under way.")] = 8,
    rate: Annotated[
        float | None, typer.Option(help="Chains per second, open loop, instead of so many at once.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each kind is measured in a repetition.")] = 5.0,
    repetitions: Annotated[int, typer.Option(help="How often, in an order drawn by lot.")] = 5,
    engine_ms: Annotated[float, typer.Option(help="How long the scripted engine takes for a call.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the order and of what is kept.")] = 1,
    short: Annotated[bool, typer.Option("--short", help="3 repetitions of 2 s.")] = False,  # noqa: FBT002 - typer's form
    address: Annotated[
        str | None, typer.Option(help="Where what --config wrote is deployed; default: a local cluster.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Write the Serve config that --address needs, and end.")
    ] = None,
    report: ReportPath = None,
    picture: PicturePath = None,
) -> None:
    """Print what a hop costs beyond its engine's time, beside a bare Serve handle call."""
    if config is not None:
        config.write_text(yaml.safe_dump(serve_config(engine_ms, _model_set(engine_ms)), sort_keys=False))
        return
    load = Load(at_once, rate, min(seconds, 2.0) if short else seconds)
    repetitions = min(repetitions, 3) if short else repetitions
    try:
        with _deployed(address, engine_ms) as url:
            made = asyncio.run(measure(url, url, load, repetitions, seed))
    except InterlockError as error:
        console.print(f"[red]error:[/red] {error}")
        raise typer.Exit(1) from error
    told = {"at_once": at_once, "rate": rate, "seconds": load.seconds, "engine_ms": engine_ms}
    result = {
        "config": {**told, "repetitions": repetitions},
        "seed": seed,
        "repetitions": made,
        "ratios": ratios(made),
        **provenance(),
    }
    console.print(_table(result))
    write(console, result, report, picture, plot)


def ratios(made: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return, for each repetition, a hop to a bare call, and eight hops to eight times a chain of one."""
    found: dict[str, list[float]] = {}
    for share in _SHARES:
        found[f"8 hops to 8 times 1, {share}"] = [
            each["8"]["chain_ms"][share] / (8 * each["1"]["chain_ms"][share]) for each in made
        ]
        for name, says in BARE.items():
            if all(name in each for each in made):
                found[f"hop of 8 to a {says}, {share}"] = [
                    each["8"]["hop_ms"][share] / each[name][share] for each in made
                ]
    return {name: [round(value, 3) for value in values] for name, values in found.items()}


def _table(result: dict[str, Any]) -> Table:
    made, told = result["repetitions"], result["config"]
    load = f"{told['at_once']} at once" if told["rate"] is None else f"{told['rate']:g} each second"
    title = f"ms beyond the engine's time, {load}: median of {told['repetitions']} (least to most)"
    table = Table("", "number", "p50", "p99", title=title)
    for name, says in BARE.items():
        if all(name in each for each in made):
            _add(table, says, [each[name] for each in made])
    for hops in HOPS:
        _add(table, f"a hop of a chain of {hops}", [each[str(hops)]["hop_ms"] for each in made])
    for hops in HOPS:
        _add(
            table, f"a whole chain of {hops}, at the gateway", [each[str(hops)]["chain_ms"] for each in made]
        )
    for hops in HOPS:
        _add(
            table, f"a whole chain of {hops}, at its client", [each[str(hops)]["client_ms"] for each in made]
        )
    table.caption = "\n".join(f"{name}: {spread(values)}" for name, values in result["ratios"].items())
    return table


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw what a hop costs, and a whole chain, by the chain's length, beside a bare call, as PNG."""
    figure, made = blank(11, 4.5), result["repetitions"]
    panels = {"hop_ms": "a hop", "chain_ms": "a whole chain, at the gateway"}
    for axes, (kind, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for share, line in zip(_SHARES, ("-", "--"), strict=True):
            values = [[each[str(hops)][kind][share] for each in made] for hops in HOPS]
            spreads = [(median(each), min(each), max(each)) for each in values]
            error_bars(axes, HOPS, spreads, linestyle=line, color="tab:blue", label=share)
            for (name, says), colour in zip(BARE.items(), ("tab:grey", "tab:orange"), strict=True):
                if kind == "hop_ms" and all(name in each for each in made):
                    at = median(each[name][share] for each in made)
                    axes.axhline(at, linestyle=line, color=colour, label=f"{says}, {share}")
        axes.set(xlabel="hops", title=title, ylabel="ms beyond the engine's time", ylim=(0, None))
        axes.set_xticks(HOPS)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _add(table: Table, says: str, kinds: Sequence[dict[str, Any]]) -> None:
    count = sum(kind["count"] for kind in kinds)
    table.add_row(says, str(count), *(spread([kind[share] for kind in kinds]) for share in _SHARES))


# -- what is measured -----------------------------------------------------------------------------


def serve_config(engine_ms: float, model_set: str | dict[str, Any]) -> dict[str, Any]:
    """Return a Serve config of Interlock with ``model_set``, and of the bare calls, plain and over gRPC."""
    found = {"PYTHONPATH": python_path(ROOT)}
    environments = {"bare": found, "bare-grpc": found | _GRPC}
    bare = [
        {
            "name": name,
            "route_prefix": f"/{name}",
            "import_path": "benchmarks.parts.bare_call:build",
            "args": {"engine_ms": engine_ms},
            "runtime_env": {"env_vars": environments[name]},
        }
        for name in BARE
    ]
    return {"applications": [interlock_application(model_set), *bare]}


def _model_set(engine_ms: float) -> dict[str, Any]:
    """Return a set of one scripted engine and a chain of each length."""
    engine = {"kind": "fake", "time_to_first_token": f"{engine_ms:g}ms", "tokens": 1, "reply": _QUESTION}
    sample = {"messages": [{"role": "user", "content": _QUESTION}]}
    chains = {
        f"hops-{hops}": {
            "steps": [{"id": f"step_{n}", "generate": {"engine": "engine"}} for n in range(hops)],
            "answer": f"step_{hops - 1}",
            "samples": [sample],
        }
        for hops in HOPS
    }
    return {"name": "chain-benchmark", "engines": {"engine": engine}, "chains": chains}


def _deployed(address: str | None, engine_ms: float) -> AbstractContextManager[str]:
    return nullcontext(address.rstrip("/")) if address is not None else _Local(engine_ms)


class _Local(AbstractContextManager[str]):
    """A local cluster with Interlock and the bare calls, on loopback."""

    def __init__(self, engine_ms: float) -> None:
        self._engine_ms = engine_ms
        self._port = free_port()
        self._cluster = LocalCluster(ROOT)

    def __enter__(self) -> str:
        self._cluster.__enter__()
        try:
            self._deploy()
            return self._until_ready()
        except BaseException:
            self._cluster.stop()
            raise

    def __exit__(self, *exc: object) -> None:
        self._cluster.stop()

    def _deploy(self) -> None:
        model_set = self._cluster.folder / "set.yaml"
        model_set.write_text(yaml.safe_dump(_model_set(self._engine_ms)))
        config = serve_config(self._engine_ms, str(model_set))
        config["http_options"] = {"host": "127.0.0.1", "port": self._port}
        self._cluster.put(config)

    def _until_ready(self) -> str:
        url, end = f"http://127.0.0.1:{self._port}", time.monotonic() + _READY_S
        with httpx.Client(trust_env=False, timeout=10.0) as http, console.status("bringing Interlock up"):
            while time.monotonic() < end:
                if all(_answers(http, asked) for asked in self._asked(url)):
                    return url
                time.sleep(0.5)
        raise CommandError(f"not everything answered within {_READY_S:g} s")

    @staticmethod
    def _asked(url: str) -> list[str]:
        return [f"{url}/readyz", *(f"{url}/{name}?at_once=1&seconds=0" for name in BARE)]


def _answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    app()
