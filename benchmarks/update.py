"""An update of an agent under load: by Interlock's swap, and by what somebody would do without it.

The same model on the same machine, one peer after the other, the same load for each: open loop, seeded,
streamed, with the same bursts before and after. Each goes from one model set to the next; clients tell what
they saw before, meanwhile and after.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import uvloop
from rich.console import Console
from rich.text import Text

from benchmarks.demo import QUESTIONS
from benchmarks.parts import exits, own_network
from benchmarks.parts.fetched_models import fetch_models
from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.output import PicturePath, ReportPath, write
from benchmarks.parts.processes import Watched
from benchmarks.parts.report import provenance
from benchmarks.parts.update_peers import OLD, PEERS, Progress, Updatable, Version
from benchmarks.parts.update_view import Moments, memory_summary, plot, summary, table
from runtime.errors import CommandError

ROOT = Path(__file__).resolve().parent.parent
_DEFAULT = "interlock,serve,restart,blue-green"
_SETTLE_S = 3.0
"""Time after the first answers in which a peer ends what it began at its start."""

_MEMORY_S = 1.0

app = typer.Typer(add_completion=False)
console = Console()


@dataclass(frozen=True)
class Config:
    """What load is offered."""

    rate: float
    seconds: float
    """Before the command, and again after the switch."""
    max_tokens: int
    seed: int
    repetitions: int


@app.command()
def main(
    peers: Annotated[str, typer.Option(help="Whom to measure, of those below, in this order.")] = _DEFAULT,
    rate: Annotated[
        float, typer.Option(min=0.01, help="Requests per second, open loop, all streamed.")
    ] = 0.4,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Seconds of load before the update, and after it.")
    ] = 60.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals and questions.")] = 1,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each peer is measured, by turns.")] = 1,
    old: Annotated[Path, typer.Option(help="Model set before the update.")] = ROOT / "models/support/v1.yaml",
    new: Annotated[Path, typer.Option(help="Model set after it.")] = ROOT / "models/support/v2.yaml",
    short: Annotated[bool, typer.Option("--short", help="12 seconds before and after.")] = False,  # noqa: FBT002 - an option
    report: ReportPath = None,
    picture: PicturePath = None,
) -> None:
    """Print what an update costs its clients, by peer.

    Peers: interlock; serve (the same chain as a plain Serve application, updated in place),
    serve-as-it-comes (without surge); restart (vLLM's own server, stopped and started behind a proxy);
    blue-green (two of them).
    Exit 1 when a peer could not be measured, or when Interlock failed or mixed a request.
    """
    config = Config(rate, 12.0 if short else seconds, max_tokens, seed, repetitions)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exits.told(console):
        makers = wanted(peers)
        if not own_network.is_own():
            fetch_models()
            own_network.enter("benchmarks.update")
        versions = (Version.read(1, old), Version.read(2, new))
        result = _measure_all(makers, versions, config)
    if result["peers"]:
        console.print(table(result))
    write(console, result, report, picture if result["peers"] else None, plot)
    if wrong := verdict(result):
        for line in wrong:
            console.print(Text(line, "red"))
        raise typer.Exit(1)


Maker = Callable[[Version, Version], Updatable]


def wanted(names: str) -> dict[str, Maker]:
    """Return how each of the comma-separated peers is made. Raises CommandError for one nobody knows."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in PEERS]:
        raise CommandError(f"--peers {', '.join(unknown)}: the peers are {', '.join(PEERS)}")
    return {name: PEERS[name] for name in asked}


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Return what is wrong, in words: what was not measured, and what Interlock must never do."""
    wrong = [f"{name} was not measured: {reason}" for name, reason in result["skipped"].items()]
    return wrong + [
        f"interlock: {peer['failed']} failed, {peer['mixed']} mixed: {peer['errors']}"
        for peer in result["peers"]
        if peer["peer"] == "interlock" and (peer["failed"] or peer["mixed"])
    ]


# -- measuring --------------------------------------------------------------------------------------


def _measure_all(
    makers: Mapping[str, Maker], versions: tuple[Version, Version], config: Config
) -> dict[str, Any]:
    measured, skipped = [], {}
    for number, (name, make) in product(range(config.repetitions), makers.items()):
        peer = make(*versions)
        try:
            measured.append({"peer": name, "repetition": number + 1} | _measure(peer, config))
        except CommandError as error:
            which = name if config.repetitions == 1 else f"{name}, repetition {number + 1},"
            skipped[which] = str(error)
            console.print(Text(f"{which} is left out: ", "red").append(str(error), "default"))
        finally:
            peer.stop()
    return {
        "config": asdict(config) | {"sets": [version.content.digest for version in versions]},
        "skipped": skipped,
        **provenance(),
        "peers": measured,
    }


def _measure(peer: Updatable, config: Config) -> dict[str, Any]:
    begun = time.monotonic()
    with console.status(f"starting {peer.name}"):
        peer.start()
        _warm_up(peer, config)
        time.sleep(_SETTLE_S)
    console.print(f"{peer.name} is up after {time.monotonic() - begun:.0f} s", highlight=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_Run(peer, config).run())
    console.print(
        f"{peer.name}: {found['requests']} requests, {found['failed']} failed, {found['mixed']} mixed, "
        f"switched after {found['seconds']['to_switch']:.1f} s",
        highlight=False,
    )
    return found


def _warm_up(peer: Updatable, config: Config) -> None:
    """Ask each question once: what is compared with is a server that has been up for a while."""
    with httpx.Client(trust_env=False, timeout=60.0) as http:
        for question in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            if peer.instructions is not None:
                messages.insert(0, {"role": "system", "content": peer.instructions})
            body = {"model": peer.model, "messages": messages, "max_tokens": config.max_tokens // 4}
            answer = http.post(f"{peer.url}/v1/chat/completions", json=body | {"stream": True})
            if answer.is_error:
                raise CommandError(f"{peer.name} refuses: {answer.text[:500]}")


class _Run:
    """Load, an update in the midst of it, and what memory was used meanwhile."""

    def __init__(self, peer: Updatable, config: Config) -> None:
        plan = Plan(
            peer.url,
            peer.model,
            QUESTIONS,
            rate=config.rate,
            stream_share=1.0,
            max_tokens=config.max_tokens,
            seed=config.seed,
            cycle_s=config.seconds,
            instructions=peer.instructions,
        )
        self._peer, self._config = peer, config
        self._load = LoadGenerator(plan)
        self._memory: list[tuple[float, Mapping[str, float]]] = []

    async def run(self) -> dict[str, Any]:
        """Return the summary, once the last request has ended."""
        cpu, begun = time.process_time(), time.perf_counter()
        watching = asyncio.create_task(self._watch())
        offered = asyncio.create_task(self._load.run())
        try:
            progress = await self._update()
            self._load.stop()
            await offered
        finally:
            offered.cancel()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        spent = (time.process_time() - cpu) / (time.perf_counter() - begun)
        assert progress.switched is not None  # noqa: S101 - an update that returns has said so
        assert progress.finished is not None  # noqa: S101
        window = self._config.seconds
        moments = Moments(progress.begun, progress.switched, progress.finished, window, progress.phases)
        return summary(self._load.records, moments, self._peer.is_mixed, OLD) | {
            "rss_mb": memory_summary(self._memory, progress.begun),
            "generator_cpu": round(spent, 3),
        }

    async def _update(self) -> Progress:
        name = self._peer.name
        with console.status(f"{name}: load before the update"):
            await asyncio.sleep(self._config.seconds)
        with console.status(f"{name}: update"):
            progress = Progress()
            await self._peer.update(progress)
        with console.status(f"{name}: load after the update"):
            switched = progress.switched or progress.begun
            await asyncio.sleep(max(0.0, switched + self._config.seconds - time.perf_counter()))
        return progress

    async def _watch(self) -> None:
        while True:
            used = await asyncio.to_thread(lambda: Watched(self._peer.processes()).read())
            self._memory.append((time.perf_counter(), used.rss_mb))
            await asyncio.sleep(_MEMORY_S)


if __name__ == "__main__":
    app()
