"""A swap of two 8B-shaped model sets beside each other on one GPU: what the live one's clients feel of it.

The weights are random and of a Llama 3 8B's shape, but for the vocabulary, which is that of the tokenizer at
hand: speed and memory are a real model's, text is not. The second set differs in its engine's settings, so
that its engine is loaded anew, from the same file. Then it is rolled back: once to an engine that sleeps,
once to one that still drains.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
import yaml
from rich.console import Console
from rich.text import Text

from benchmarks.parts import exits
from benchmarks.parts.gpu_model import engine, write_model
from benchmarks.parts.gpu_view import first_token, inter_token, loads, samples, table
from benchmarks.parts.local_cluster import LocalCluster, free_port, interlock_application, python_path
from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.output import ReportPath, write
from benchmarks.parts.report import is_live, is_mixed, provenance, release_of
from runtime.cli.client import AdminClient
from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
MODEL = "writer"
_QUESTIONS = ("What can I do about my bill?", "The app crashes.", "How do I change my address?")
_READY_S = 300.0
_POLL_S = 0.2
app = typer.Typer(add_completion=False)
console = Console()


@app.command()
def main(
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer's folder; default: the demo's.")] = None,
    weights: Annotated[str, typer.Option(help="file: written at random, then read. dummy: vLLM's.")] = "file",
    folder: Annotated[Path, typer.Option(help="Where the model is written; 15 GB.")] = Path("/dev/shm/8b"),  # noqa: S108 - memory, not a secret
    layers: Annotated[int, typer.Option(help="Layers of the model.")] = 32,
    kv_gib: Annotated[float, typer.Option(help="KV cache of each engine.")] = 8.0,
    share: Annotated[float, typer.Option(help="Ray's share of the GPU for each engine.")] = 0.45,
    eager: Annotated[bool, typer.Option("--eager", help="Neither compile nor capture graphs.")] = False,  # noqa: FBT002 - an option
    rate: Annotated[float, typer.Option(help="Requests per second, open loop, all streamed.")] = 4.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 200,
    seconds: Annotated[float, typer.Option(help="Seconds of load before, and after each move.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 1,
    report: ReportPath = None,
    logs: Annotated[Path | None, typer.Option(help="Copy Ray's logs here in the end.")] = None,
) -> None:
    """Print the inter-token times by phase of a swap on one GPU, its parts, and how fast the weights came.

    Exit 1 when a request failed or mixed two releases.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    source = tokenizer or Settings().models_dir / "smollm2-135m-instruct"
    with exits.told(console):
        with console.status("writing the model"):
            size = write_model(folder, source, layers, with_weights=weights == "file")
        llm_config = engine(folder, "auto" if weights == "file" else "dummy", kv_gib, share, eager=eager)
        agent = _Agent(llm_config, size)
        try:
            agent.start()
            plan = Plan(
                agent.url, MODEL, _QUESTIONS, rate=rate, stream_share=1.0, max_tokens=max_tokens, seed=seed
            )
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(_Run(agent, plan, seconds).run())
            result |= {"loads": loads(agent.logged(), size), "weights": weights, "layers": layers}
        finally:
            if logs is not None:
                agent.copy_logs(logs)
            agent.stop()
    result["config"] = {"rate": rate, "max_tokens": max_tokens, "seconds": seconds, "engine": llm_config}
    result |= provenance() | {"gpu": gpu_name()}
    console.print(table(result))
    write(console, result, report)
    if result["failed"] or result["mixed"]:
        console.print(Text(f"{result['failed']} failed, {result['mixed']} mixed: {result['errors']}", "red"))
        raise typer.Exit(1)


# -- the agent ------------------------------------------------------------------------------------


class _Agent:
    """Interlock on a local cluster, with two versions of a set that can be deployed."""

    def __init__(self, engine: Mapping[str, Any], size: int) -> None:
        self._engine, self._size = engine, size
        self._port = free_port()
        self._admin = AdminClient(Settings(), self.url)
        self._cluster = LocalCluster(ROOT, environment={"PYTHONPATH": python_path(ROOT)})

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Bring the first version up."""
        self._cluster.__enter__()
        begun = time.monotonic()
        with console.status("bringing the first set up"):
            self.deploy(1)
            while not self._is_up():
                if time.monotonic() - begun > _READY_S:
                    raise CommandError(f"the first set was not live within {_READY_S:g} s")
                time.sleep(_POLL_S)
        console.print(f"the first set is live after {time.monotonic() - begun:.0f} s", highlight=False)

    def _is_up(self) -> bool:
        try:
            return self.routes_to(1, self.status())
        except Unavailable:
            return False

    def deploy(self, version: int) -> None:
        """Ask for a version, as ``serve deploy`` does. Raises CommandError if it is refused."""
        path = self._path(version)
        path.write_text(yaml.safe_dump(self._set(version)))
        http = {"host": "127.0.0.1", "port": self._port}
        config = {"http_options": http, "applications": [interlock_application(str(path))]}
        self._cluster.put(config)

    def _path(self, version: int) -> Path:
        return self._cluster.folder / f"v{version}.yaml"

    def _set(self, version: int) -> dict[str, Any]:
        # What an engine's digest tells apart; it changes nothing that is compiled.
        kwargs = self._engine["engine_kwargs"] | {"seed": version}
        step = {"id": "answer", "generate": {"engine": "writer"}}
        sample = {"messages": [{"role": "user", "content": _QUESTIONS[0]}], "params": {"max_tokens": 32}}
        engine = {"kind": "vllm", "llm_config": {**self._engine, "engine_kwargs": kwargs}}
        return {
            "name": "gpu-benchmark",
            "rollback_window": "1h",
            "engines": {"writer": engine | {"memory": {"weights": f"{self._size / 2**20:.0f}MiB"}}},
            "chains": {MODEL: {"deadline": "60s", "steps": [step], "answer": "answer", "samples": [sample]}},
            "warmup": {"at_once": [1, 8]},
        }

    def routes_to(self, version: int, status: Mapping[str, Any]) -> bool:
        """Say whether every gateway routes to a version. Raises CommandError if it failed."""
        return is_live(status, str(self._path(version)))

    def status(self) -> dict[str, Any]:
        """Return the control state."""
        return self._admin.status().as_json()

    def roll_back(self) -> None:
        """Roll back. Raises CommandError if it is refused."""
        self._admin.command("releases/rollback", "*")

    def logged(self) -> list[str]:
        """Return what all processes have logged, file by file."""
        folder = self._cluster.folder / "ray/session_latest/logs"
        paths = sorted(path for path in folder.rglob("*") if path.suffix in {".log", ".out", ".err"})
        return [path.read_text(errors="replace") for path in paths]

    def copy_logs(self, folder: Path) -> None:
        """Write the end of each log into one file of ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        logs = self._cluster.folder / "ray/session_latest/logs"
        with (folder / "ray-logs.txt").open("w") as file:
            for path in sorted(path for path in logs.rglob("*") if path.is_file()):
                file.write(f"==== {path.name}\n{path.read_text(errors='replace')[-40_000:]}\n")

    def stop(self) -> None:
        """End the cluster."""
        self._cluster.stop()


def gpu_name() -> str | None:
    """Return the name of the first GPU, its driver's version and its memory; None if there is no GPU."""
    return _asked_of_gpu("name,driver_version,memory.total")


def _asked_of_gpu(what: str) -> str | None:
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]  # noqa: S603 - our own arguments
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


# -- measuring ------------------------------------------------------------------------------------


class _Run:
    """Load, a swap in the midst of it, and two rollbacks."""

    def __init__(self, agent: _Agent, plan: Plan, seconds: float) -> None:
        self._agent, self._seconds = agent, seconds
        self._load = LoadGenerator(plan)
        self._wall = time.time() - time.perf_counter()
        self._marks: list[tuple[str, float]] = []
        self._memory: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Return the summary, once the last request has ended."""
        offered = asyncio.create_task(self._load.run())
        watching = asyncio.create_task(self._watch())
        try:
            found = await self._moves()
            self._load.stop()
            await offered
        finally:
            offered.cancel()
            watching.cancel()
        status = await asyncio.to_thread(self._agent.status)
        records = self._load.records
        ok = [record for record in records if record.error is None]
        return found | {
            "requests": len(records),
            "failed": len(records) - len(ok),
            "mixed": sum(is_mixed(record, status) for record in ok),
            "errors": sorted({record.error for record in records if record.error is not None})[:10],
            "inter_token_ms": inter_token(ok, self._marks),
            "ttft_ms": first_token(ok, self._marks),
            "samples": samples(records, self._marks[0][1]),
            "phases": [[name, round(at - self._marks[0][1], 2)] for name, at in self._marks],
            "gpu_memory_gib": {"most": round(max(self._memory, default=0.0), 2)},
        }

    async def _moves(self) -> dict[str, Any]:
        self._mark("before")
        await self._sleep("load before the swap")
        self._mark("load")
        swap = await self._swap()
        await self._sleep("load after the swap")
        with console.status("the old set drains and sleeps"):
            await self._until(lambda status: _state(status, 1) == "standby" and _asleep(status, 1))
        self._mark("wake")
        woken = await self._roll_back(1)
        self._mark("woken")
        await asyncio.sleep(1.0)
        self._mark("back")
        if (state := _state(await asyncio.to_thread(self._agent.status), 2)) != "draining":
            raise CommandError(
                f"release 2 does not drain any more, it is {state}: give --rate or --max-tokens more"
            )
        draining = await self._roll_back(2)
        await self._sleep("load after the rollbacks")
        return {"swap_s": swap, "rollback_s": {"from_sleep": woken, "while_draining": draining}}

    def _mark(self, name: str, at: float | None = None) -> None:
        self._marks.append((name, time.perf_counter() if at is None else at))

    async def _sleep(self, what: str) -> None:
        with console.status(what):
            await asyncio.sleep(self._seconds)

    async def _swap(self) -> dict[str, float]:
        begun = time.perf_counter()
        await asyncio.to_thread(self._agent.deploy, 2)
        with console.status("the second set is loaded under load"):
            release = release_of(await self._until(lambda status: self._agent.routes_to(2, status)), 2)
        entered = release["entered"]
        for name, state in (("warm", "warming"), ("after", "live")):
            self._mark(name, entered[state] - self._wall)
        return {
            "load": round(entered["warming"] - entered["loading"], 3),
            "warm": round(entered["live"] - entered["warming"], 3),
            "cutover": round(release["acknowledged"] - entered["live"], 4),
            "from_command": round(release["acknowledged"] - self._wall - begun, 3),
        }

    async def _roll_back(self, number: int) -> float:
        """Return the seconds from the command to the last gateway's acknowledgement, by one clock."""
        begun = time.time()
        await asyncio.to_thread(self._agent.roll_back)
        with console.status(f"back to release {number}"):
            status = await self._until(
                lambda status: (
                    status["live"] == number and (release_of(status, number)["acknowledged"] or 0.0) > begun
                )
            )
        seconds: float = release_of(status, number)["acknowledged"] - begun
        return round(seconds, 4)

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            with suppress(Unavailable):  # a busy machine: the load says whether anything failed
                status = await asyncio.to_thread(self._agent.status)
                if condition(status):
                    return status
            await asyncio.sleep(_POLL_S)
        raise CommandError(f"what was waited for did not come within {_READY_S:g} s")

    async def _watch(self) -> None:
        while (used := await asyncio.to_thread(_asked_of_gpu, "memory.used")) is not None:
            self._memory.append(float(used.split()[0]) / 1024.0)  # it says MiB
            await asyncio.sleep(0.5)


def _state(status: Mapping[str, Any], number: int) -> str:
    return str(release_of(status, number)["state"])


def _asleep(status: Mapping[str, Any], number: int) -> bool:
    states = [engine["state"] for engine in status["engines"] if number in engine["releases"]]
    return bool(states) and all(state == "asleep" for state in states)


if __name__ == "__main__":
    app()
