"""What the way to an engine costs: the same one behind vLLM's server, ray.serve.llm, LiteLLM and Interlock.

Closed loop: so many streams are always in flight. Peers are measured in turn; those that are not
being measured are suspended.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import uvloop
import yaml
from rich.console import Console
from rich.text import Text

from benchmarks.parts import exits, litellm_proxy, own_network, peers
from benchmarks.parts.closed_loop import ClosedLoop, ClosedPlan, Window
from benchmarks.parts.fetched_models import fetch_models
from benchmarks.parts.output import PicturePath, ReportPath, write
from benchmarks.parts.overhead_view import histogram, plot, significant, summary, tables
from benchmarks.parts.peer import Peer, set_aside, take_up
from benchmarks.parts.peers import EngineSettings
from benchmarks.parts.processes import Used, Watched, stolen_s
from benchmarks.parts.report import provenance
from benchmarks.parts.script import Script
from runtime.errors import CommandError
from runtime.settings import Settings

_SETTLE_S = 6.0
"""How long a peer that goes on may catch up with its timers before it is loaded: with a second, p99s of
Interlock's gaps after half a minute of suspension were up to 35 ms greater than without one."""

_BEGIN_WITHIN_S = 2.0
"""In what time the streams of a measurement begin, each at random."""

_HEAVY_GIB, _RESERVE_GIB = 6.0, 4.0
"""What a peer with an engine on Ray takes at most on the CPU, and what is left to everybody else."""

_DEFAULT = ("interlock", "ray-llm-tuned", "litellm", "ray-llm")
_SHORT = ("interlock", "ray-llm-tuned", "litellm")

app = typer.Typer(add_completion=False)
console = Console()


class Engine(StrEnum):
    """What is behind each peer."""

    MODEL = "model"
    SCRIPTED = "scripted"


@dataclass(frozen=True)
class Config:
    """What is measured of each peer."""

    engine: str
    streams: Sequence[int]
    seconds: float
    repetitions: int
    tokens: int
    seed: int
    script: Script | None = None

    def plan(self, peer: Peer, streams: int, repetition: int) -> ClosedPlan:
        """Return a measurement's load: prompts of one form that nobody has seen before.

        Peers do not share them: one that stands in front of the baseline met its prefix cache.
        """
        seed = f"{self.seed}/{peer.name}/{streams}/{repetition}"
        return ClosedPlan(peer.url, peer.model, streams, self.tokens, self.seconds, seed, _BEGIN_WITHIN_S)


@dataclass(frozen=True)
class Field:
    """Whom to measure: the baseline, and how the others are made, which may stand in front of it."""

    baseline: Peer
    others: Mapping[str, Callable[[], Peer]]


@app.command()
def main(
    engine: Annotated[Engine, typer.Option(help="A real model, or a script of fixed times.")] = Engine.MODEL,
    streams: Annotated[list[int] | None, typer.Option(help="Streams in flight; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each measurement is.")] = 10.0,
    repetitions: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 1,
    ttft_ms: Annotated[float, typer.Option(help="The script's time to first token.")] = 100.0,
    inter_token_ms: Annotated[float, typer.Option(help="The script's time between tokens.")] = 50.0,
    only: Annotated[list[str] | None, typer.Option(help="Measure this local peer; may be repeated.")] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="A server that runs: NAME=URL,MODEL. May be repeated; the first is the baseline."),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML of engine settings; default: a small model on the CPU.")
    ] = None,
    together: Annotated[
        int | None, typer.Option(help="Peers on Ray that are up at a time; default: as memory allows.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Few peers, two repetitions, five seconds.")] = False,  # noqa: FBT002 - an option
    report: ReportPath = None,
    picture: PicturePath = None,
) -> None:
    """Print throughput, time to first token, inter-token latency and what each process uses, by peer.

    Local peers: vllm (or scripted), interlock, interlock-grpc, interlock-tuned, ray-llm (as it comes),
    ray-llm-tuned, ray-llm-direct, litellm. Exit 1 when a request failed or a peer did not start.
    """
    script = Script(ttft_ms / 1000.0, inter_token_ms / 1000.0) if engine is Engine.SCRIPTED else None
    levels = streams or ([1, 8, 32, 256] if script else [1, 8, 32])
    if short:
        levels, seconds, repetitions = streams or ([8, 256] if script else [1, 8]), 5.0, 2
        only = only or list(_SHORT)
    config = Config(engine.value, levels, seconds, repetitions, tokens, seed, script)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exits.told(console), ExitStack() as running:
        field = _running(peer) if peer else _local(config, settings, only)
        result = _Benchmark(config, field, running, together).run()
    for table in tables(result):
        console.print(table)
    write(console, result, report, picture, plot)
    if result["failed"] or result["skipped"]:
        raise typer.Exit(1)


# -- whom to measure ------------------------------------------------------------------------------


def _running(told: Sequence[str]) -> Field:
    found = [_running_peer(text) for text in told]
    return Field(found[0], {peer.name: _constant(peer) for peer in found[1:]})


def _constant(peer: Peer) -> Callable[[], Peer]:
    return lambda: peer


def _running_peer(text: str) -> Peer:
    name, equals, rest = text.partition("=")
    url, comma, model = rest.rpartition(",")
    if not (name and equals and url and comma and model):
        raise CommandError(f"--peer {text!r}: write it as NAME=URL,MODEL")
    return peers.Running(name, url.rstrip("/"), model)


def _local(config: Config, settings: Path | None, only: Sequence[str] | None) -> Field:
    """Return the peers of this machine. It goes on in a network of its own, if it may have one."""
    if not own_network.is_own():
        _prepare(config, settings, only)
        own_network.enter("benchmarks.overhead")
        console.print(
            "no network of its own can be made: peers with HAProxy are left out, it would listen outside"
        )
    known = _known(config, _engine_settings(settings))
    if unknown := set(only or ()) - set(known.others):
        raise CommandError(f"--only {', '.join(sorted(unknown))}: the peers are {', '.join(known.others)}")
    others = {name: make for name, make in known.others.items() if name in (only or _DEFAULT)}
    return Field(known.baseline, others)


def _prepare(config: Config, settings: Path | None, only: Sequence[str] | None) -> None:
    """Fetch what needs the network: not the model, if the settings name another."""
    if config.script is None and settings is None:
        fetch_models()
    if "litellm" in (only or _DEFAULT):
        try:
            console.print("litellm: its own environment is made if it is not there yet, which takes minutes")
            litellm_proxy.install()
        except CommandError as error:
            console.print(Text("litellm is left out: ", "yellow").append(str(error), "default"))


def _engine_settings(path: Path | None) -> EngineSettings:
    models = Settings().models_dir
    local = EngineSettings(str(models / "smollm2-135m-instruct"))
    if path is None:
        return local
    try:
        return EngineSettings(**(asdict(local) | yaml.safe_load(path.read_text())))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise CommandError(f"{path} has no engine settings: {error}") from error


def _known(config: Config, settings: EngineSettings) -> Field:
    script = config.script
    baseline = peers.vllm_server(settings) if script is None else peers.scripted_server(script)
    of_ray = settings.for_ray() if script is None else peers.scripted_llm(script, settings)
    ours = (
        peers.interlock_engine(settings) if script is None else peers.interlock_script(script, config.tokens)
    )
    others: dict[str, Callable[[], Peer]] = {
        # First: it takes little memory, and whoever waits for that to be free is measured at another time.
        "litellm": lambda: peers.LiteLLM(baseline),
        "interlock": lambda: peers.Interlock("interlock", ours, {}),
        "interlock-grpc": lambda: peers.Interlock("interlock-grpc", ours, peers.GRPC),
        "interlock-tuned": lambda: peers.Interlock("interlock-tuned", ours, peers.TUNED),
        "ray-llm-tuned": lambda: peers.ray_llm("ray-llm-tuned", of_ray, peers.TUNED),
        "ray-llm-direct": lambda: peers.ray_llm("ray-llm-direct", of_ray, peers.DIRECT),
        "ray-llm": lambda: peers.ray_llm("ray-llm", of_ray, {}, batching=True),
    }
    return Field(baseline, others)


# -- measuring ------------------------------------------------------------------------------------


class _Benchmark:
    """Starts peers, measures them in turn, and says what came of it."""

    def __init__(self, config: Config, field: Field, running: ExitStack, together: int | None) -> None:
        self._config = config
        self._field = field
        self._running = running
        self._together = together
        self._samples: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Return the result, as it is reported."""
        if not self._start(self._field.baseline, self._running):
            raise CommandError(self._skipped[self._field.baseline.name])
        waiting = list(self._field.others.values())
        while waiting or not self._samples:
            with ExitStack() as group:
                self._measure_group(self._start_group(waiting, group))
        baseline, made = self._field.baseline.name, provenance()
        return {
            "config": asdict(self._config)
            | {"baseline": baseline, "begin_within_s": _BEGIN_WITHIN_S, "settle_s": _SETTLE_S},
            "failed": sum(sample["failed"] for sample in self._samples),
            "errors": sorted({error for sample in self._samples for error in sample.pop("errors")})[:10],
            "skipped": self._skipped,
            "summary": summary(self._samples, baseline),
            **made,
            "versions": made["versions"] | {"litellm": litellm_proxy.VERSION},
            "samples": self._samples,
        }

    def _start_group(self, waiting: list[Callable[[], Peer]], group: ExitStack) -> list[Peer]:
        """Start as many of those that wait as may be up together, and the baseline."""
        started, heavy = [self._field.baseline], 0
        while waiting and (not heavy or heavy < self._room(heavy)):
            peer = waiting.pop(0)()
            if self._start(peer, group):
                started.append(peer)
                heavy += isinstance(peer, peers.OnServe)
        return started

    def _room(self, heavy: int) -> int:
        """Return how many peers on Ray may be up, ``heavy`` of which are."""
        if self._together is not None:
            return self._together
        free = psutil.virtual_memory().available / 2**30 - _RESERVE_GIB
        return heavy + int(free // _HEAVY_GIB)

    def _start(self, peer: Peer, stack: ExitStack) -> bool:
        stack.callback(peer.stop)
        begun = time.monotonic()
        try:
            with console.status(f"starting {peer.name}"):
                peer.start()
        except CommandError as error:
            self._skipped[peer.name] = str(error)
            console.print(Text(f"{peer.name} is left out: ", "red").append(str(error), "default"))
            return False
        finally:
            set_aside(peer)
        console.print(f"{peer.name} answers after {time.monotonic() - begun:.0f} s", highlight=False)
        return True

    def _measure_group(self, up: Sequence[Peer]) -> None:
        group = len({sample["group"] for sample in self._samples})
        for repetition, streams, peer in _turns(up, self._config):
            with console.status(f"{peer.name}: {streams} streams, repetition {repetition + 1}"):
                sample = self._measure(peer, up, streams, repetition)
            self._samples.append({"group": group} | sample)
            console.print(
                f"{repetition + 1}/{self._config.repetitions} {streams:>4} streams {peer.name:<16}"
                f"{sample['tokens_per_second']:>9.1f} tokens/s, {sample['failed']} failed",
                highlight=False,
            )

    def _measure(self, peer: Peer, up: Sequence[Peer], streams: int, repetition: int) -> dict[str, Any]:
        take_up(peer)
        try:
            peer_processes = peer.processes()
            mine = {process.pid for process in peer_processes}
            idle = [process for other in up for process in other.processes() if process.pid not in mine]
            watched, others = Watched(peer_processes), Watched(idle)
            time.sleep(_SETTLE_S)
            loop = ClosedLoop(
                self._config.plan(peer, streams, repetition),
                lambda: (watched.read(), others.read(), stolen_s()),
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                window = runner.run(loop.run())
        finally:
            set_aside(peer)
        return {"peer": peer.name, "streams": streams, "repetition": repetition} | _sample(window)


def _turns(up: Sequence[Peer], config: Config) -> Iterator[tuple[int, int, Peer]]:
    """Yield what to measure, one after the other; each repetition begins with another peer."""
    for repetition in range(config.repetitions):
        first = repetition % len(up)
        for streams in config.streams:
            for peer in (*up[first:], *up[:first]):
                yield repetition, streams, peer


def _sample(window: Window[tuple[Used, Used, float | None]]) -> dict[str, Any]:
    (before, others_before, stolen_before), (after, others_after, stolen_after) = window.readings
    return {
        "tokens_per_second": significant(window.tokens_per_second),
        "failed": len(window.errors),
        "errors": window.errors,
        "ttft_ms": [significant(value) for value in window.ttft_ms],
        "gaps_ms": histogram(window.gaps_ms),
        "cpu_s": {kind: round(value, 2) for kind, value in after.since(before).items()},
        "idle_cpu_s": round(sum(others_after.since(others_before).values()), 2),
        "stolen_cpu_s": _between(stolen_before, stolen_after),
        "rss_mb": {kind: round(value) for kind, value in after.rss_mb.items()},
        "generator_cpu": round(window.generator_cpu, 3),
        "seconds": round(window.closed - window.opened, 3),
    }


def _between(before: float | None, after: float | None) -> float | None:
    return round(after - before, 2) if before is not None and after is not None else None


if __name__ == "__main__":
    app()
