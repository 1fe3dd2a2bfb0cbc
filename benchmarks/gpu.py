"""A swap of two 8B-shaped model sets beside each other on one GPU: what the live one's clients feel of it.

The weights are random and of a Llama 3 8B's shape, but for the vocabulary, which is that of the tokenizer at
hand: speed and memory are a real model's, text is not. The second set differs in its engine's settings, so
that its engine is loaded anew, from the same file. Then it is rolled back: once to an engine that sleeps,
once to one that still drains.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import uvloop
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import exits
from benchmarks.load import LoadGenerator, Plan, Record, percentile
from benchmarks.local_cluster import LocalCluster, free_port, interlock_application, python_path
from benchmarks.report import is_live, is_mixed, provenance
from benchmarks.update_view import thinned
from runtime.errors import CommandError
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
MODEL = "writer"
_QUESTIONS = ("What can I do about my bill?", "The app crashes.", "How do I change my address?")
_READY_S = 300.0
_POLL_S = 0.2
_SAMPLES = 1000
"""Requests that a report keeps; summaries are from all."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

SHAPE: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""A ``config.json`` of Llama 3's 8B, less its vocabulary."""

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
    report: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
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
        engine = _engine(folder, "auto" if weights == "file" else "dummy", kv_gib, share, eager=eager)
        agent = _Agent(engine, size)
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
    result["config"] = {"rate": rate, "max_tokens": max_tokens, "seconds": seconds, "engine": engine}
    result |= provenance() | {"gpu": gpu_name()}
    console.print(table(result))
    if report is not None:
        report.write_text(json.dumps(result) + "\n")
        console.print(f"report written to {report}", highlight=False)
    if result["failed"] or result["mixed"]:
        console.print(Text(f"{result['failed']} failed, {result['mixed']} mixed: {result['errors']}", "red"))
        raise typer.Exit(1)


# -- the model ------------------------------------------------------------------------------------


def write_model(folder: Path, tokenizer: Path, layers: int, *, with_weights: bool) -> int:
    """Write a model of ``SHAPE`` into ``folder`` unless it is there; return its weights' bytes.

    Raises CommandError if ``tokenizer`` has none.
    """
    try:
        vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CommandError(
            f"{tokenizer}: no config.json with a vocab_size beside a tokenizer: {error}"
        ) from error
    config = dict(SHAPE) | {"vocab_size": vocabulary, "num_hidden_layers": layers}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in _TOKENIZER:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    tensors = tensor_shapes(config)
    file, written = folder / "model.safetensors", folder / "written.json"
    if with_weights and not (
        file.is_file() and written.is_file() and json.loads(written.read_text()) == tensors
    ):
        written.unlink(missing_ok=True)  # until all of the file is there
        script = [sys.executable, "-m", "benchmarks.random_weights", str(file)]
        done = subprocess.run(  # noqa: S603 - our own arguments
            script, input=json.dumps(tensors), text=True, capture_output=True, check=False, cwd=ROOT
        )
        if done.returncode:
            raise CommandError(f"{file} could not be written: {done.stderr[-1000:]}")
        written.write_text(json.dumps(tensors))
    if not with_weights:
        file.unlink(missing_ok=True)
    return 2 * sum(_product(shape) for shape in tensors.values())


def _product(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of a Llama's tensors, by the names that its checkpoints have."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    queries = config["num_attention_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [queries, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, queries],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    found = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    embedding = [vocabulary, hidden]
    ends = {"model.embed_tokens": embedding, "model.norm": [hidden], "lm_head": embedding}
    return found | {f"{name}.weight": shape for name, shape in ends.items()}


def _engine(folder: Path, load_format: str, kv_gib: float, share: float, *, eager: bool) -> dict[str, Any]:
    """Return an engine of a model set that takes a share of a GPU."""
    return {
        "model_loading_config": {"model_id": "8b", "model_source": str(folder)},
        "engine_kwargs": {
            "dtype": "bfloat16",
            "load_format": load_format,
            "max_model_len": 4096,
            "max_num_seqs": 64,
            "kv_cache_memory_bytes": round(kv_gib * 2**30),
            # It decides nothing beside the above; but where less is free, vLLM does not start.
            "gpu_memory_utilization": round(share, 2),
            "enable_sleep_mode": True,
            "enforce_eager": eager,
        },
        # Ray gives a replica the whole GPU otherwise, and the next set's would wait for it for ever.
        "placement_group_config": {"bundles": [{"GPU": share, "CPU": 1}]},
    }


def gpu_name() -> str | None:
    """Return the name of the first GPU, its driver's version and its memory; None if there is no GPU."""
    return _asked_of_gpu("name,driver_version,memory.total")


def _asked_of_gpu(what: str) -> str | None:
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]  # noqa: S603 - our own arguments
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


# -- the agent ------------------------------------------------------------------------------------


class _Agent:
    """Interlock on a local cluster, with two versions of a set that can be deployed."""

    def __init__(self, engine: Mapping[str, Any], size: int) -> None:
        self._engine, self._size = engine, size
        self._port = free_port()
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
            while not self.is_live(1):
                if time.monotonic() - begun > _READY_S:
                    raise CommandError(f"the first set was not live within {_READY_S:g} s")
                time.sleep(_POLL_S)
        console.print(f"the first set is live after {time.monotonic() - begun:.0f} s", highlight=False)

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
            "chains": {MODEL: {"deadline": "2m", "steps": [step], "answer": "answer", "samples": [sample]}},
            "warmup": {"at_once": [1, 8]},
        }

    def is_live(self, version: int) -> bool:
        """Say whether every gateway routes to a version. Raises CommandError if it failed."""
        try:
            return is_live(self.status(), str(self._path(version)))
        except (httpx.TransportError, json.JSONDecodeError, KeyError):
            return False

    def status(self) -> dict[str, Any]:
        """Return the control state."""
        answer = httpx.get(f"{self.url}/admin/v1/status", timeout=10.0, trust_env=False)
        found: dict[str, Any] = answer.json()
        return found

    def roll_back(self) -> dict[str, Any]:
        """Roll back. Raises CommandError if it is refused."""
        path = f"{self.url}/admin/v1/releases/rollback"
        answer = httpx.post(path, headers={"if-match": "*"}, timeout=60.0, trust_env=False)
        if answer.is_error:
            raise CommandError(f"the rollback was refused: {answer.text[:1000]}")
        found: dict[str, Any] = answer.json()
        return found

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


# -- measuring ------------------------------------------------------------------------------------


class _Run:
    """Load, a swap in the midst of it, and two rollbacks."""

    def __init__(self, agent: _Agent, plan: Plan, seconds: float) -> None:
        self._agent, self._seconds = agent, seconds
        self._load = LoadGenerator(plan)
        self._wall = time.time() - time.perf_counter()
        self._marks: list[tuple[str, float]] = []
        self._memory: list[tuple[float, float]] = []

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
            "samples": thinned([_sample(record, self._marks[0][1]) for record in records], _SAMPLES),
            "phases": [[name, round(at - self._marks[0][1], 2)] for name, at in self._marks],
            "gpu_memory_gib": {"most": round(max((used for _, used in self._memory), default=0.0), 2)},
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
            end = time.monotonic() + _READY_S
            while not await asyncio.to_thread(self._agent.is_live, 2):
                if time.monotonic() > end:
                    raise CommandError(f"the second set was not live within {_READY_S:g} s")
                await asyncio.sleep(_POLL_S)
        release = _release(await asyncio.to_thread(self._agent.status), 2)
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
                    status["live"] == number and (_release(status, number)["acknowledged"] or 0.0) > begun
                )
            )
        seconds: float = _release(status, number)["acknowledged"] - begun
        return round(seconds, 4)

    async def _until(self, condition: Any) -> dict[str, Any]:
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            status = await asyncio.to_thread(self._agent.status)
            if condition(status):
                return status
            await asyncio.sleep(_POLL_S)
        raise CommandError(f"what was waited for did not come within {_READY_S:g} s")

    async def _watch(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while True:
            try:
                done = await asyncio.to_thread(
                    subprocess.run, query, capture_output=True, text=True, check=True
                )
            except (OSError, subprocess.CalledProcessError):
                return
            self._memory.append((time.perf_counter(), float(done.stdout.split()[0]) / 1024.0))
            await asyncio.sleep(0.5)


def _sample(record: Record, begun: float) -> list[Any]:
    """Return a request as [sent s, TTFT ms, longest gap ms, ended s, release]."""
    gaps = [(late - early) * 1000.0 for early, late in pairwise(record.pieces)]
    return [
        round(record.sent - begun, 2),
        round(record.ttft_ms, 1) if record.ttft_ms is not None else None,
        round(max(gaps), 1) if gaps else None,
        round(record.ended - begun, 2) if record.ended is not None else None,
        record.release,
    ]


def _release(status: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(r for r in status["releases"] if r["number"] == number)
    return found


def _state(status: Mapping[str, Any], number: int) -> str:
    return str(_release(status, number)["state"])


def _asleep(status: Mapping[str, Any], number: int) -> bool:
    states = [engine["state"] for engine in status["engines"] if number in engine["releases"]]
    return bool(states) and all(state == "asleep" for state in states)


def inter_token(records: Sequence[Record], marks: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Return the times between the pieces of streams, by the phase in which they ended."""
    gaps: dict[str, list[float]] = {name: [] for name, _ in marks}
    for record in records:
        for begin, end in pairwise(record.pieces):
            if name := _phase(marks, end):
                gaps[name].append((end - begin) * 1000.0)
    return {name: _summary(found) for name, found in gaps.items()}


def first_token(records: Sequence[Record], marks: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Return the times to the first token, by the phase in which a request was sent."""
    times: dict[str, list[float]] = {name: [] for name, _ in marks}
    for record in records:
        if record.ttft_ms is not None and (name := _phase(marks, record.sent)):
            times[name].append(record.ttft_ms)
    return {name: _summary(found) for name, found in times.items()}


def _phase(marks: Sequence[tuple[str, float]], at: float) -> str | None:
    begun = [name for name, since in marks if since <= at]
    return begun[-1] if begun else None


def _summary(samples: list[float]) -> dict[str, Any]:
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {"count": len(samples)} | {
        name: round(percentile(samples, share) or 0.0, 3) if samples else None for name, share in shares
    }


_TOLD = {
    "read_s": re.compile(r"Loading weights took ([0-9.]+) seconds"),
    "loaded_s": re.compile(r"Model loading took \S+ GiB(?: memory)? and ([0-9.]+) seconds"),
    "compiled_s": re.compile(r"torch\.compile (?:took|takes) ([0-9.]+) s"),
    "captured_s": re.compile(r"Graph capturing finished in ([0-9.]+) secs"),
    "asleep_s": re.compile(r"It took ([0-9.]+) seconds to fall asleep"),
    "awake_s": re.compile(r"It took ([0-9.]+) seconds to wake up"),
}
_LINE = re.compile(r"INFO \S+ (\d\d:\d\d:\d\d) .*")


def loads(logs: Sequence[str], size: int) -> dict[str, Any]:
    """Return what vLLM has said of its loads, sleeps and wakes, in order, and how fast the weights came."""
    # Ray hands a worker's lines on to whoever has started it, whose log then has them, too.
    lines = sorted({line.group() for text in logs for line in _LINE.finditer(text)})
    found: dict[str, Any] = {
        name: [float(seconds) for line in lines for seconds in pattern.findall(line)]
        for name, pattern in _TOLD.items()
    }
    for name in ("read_s", "asleep_s", "awake_s"):
        rate = [round(size / 1e9 / seconds, 2) for seconds in found[name] if seconds]
        found[name.removesuffix("_s") + "_gb_per_s"] = rate
    return found | {"weights_bytes": size}


def table(result: Mapping[str, Any]) -> Table:
    """Return the result as a table."""
    shown = Table(
        "what", "value", title=f"{result['gpu']}: {result['requests']} requests, two sets on one GPU"
    )
    for name, summary in result["inter_token_ms"].items():
        shown.add_row(f"inter-token ms, {name}", _text(summary))
    for name, summary in result["ttft_ms"].items():
        shown.add_row(f"time to first token ms, {name}", _text(summary))
    for part in ("swap_s", "rollback_s", "loads", "gpu_memory_gib"):
        for name, value in result[part].items():
            shown.add_row(f"{part} {name}", str(value))
    shown.caption = f"{result['failed']} failed, {result['mixed']} mixed"
    return shown


def _text(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in summary.items())


if __name__ == "__main__":
    app()
