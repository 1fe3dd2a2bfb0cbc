"""Starting and stopping what Interlock is measured against, and Interlock itself, on one machine.

Every server listens on loopback, lives in a folder of its own, and is ended by process id. One that is not
being measured is suspended, so that it costs nothing but its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.parts import litellm_proxy
from benchmarks.parts.local_cluster import (
    HAPROXY,
    LocalCluster,
    end_processes,
    free_port,
    haproxy_settings,
    interlock_application,
    python_path,
)
from benchmarks.parts.peer import Peer, await_answer, take_up
from benchmarks.parts.processes import family
from benchmarks.parts.script import SCRIPT, Script
from runtime.settings import child_environment

ROOT = Path(__file__).resolve().parents[2]
MODEL = "overhead"
"""What every peer calls its model; in Interlock it is a chain of one step."""


@dataclass(frozen=True)
class EngineSettings:
    """The model and the engine's settings, the same behind each peer. The defaults are for two CPU cores."""

    model_source: str
    engine_kwargs: Mapping[str, Any] = field(
        default_factory=lambda: {
            "dtype": "float32",  # CPUs without bfloat16 instructions are several times slower with it
            "max_model_len": 2048,
            "max_num_seqs": 32,
            "enforce_eager": True,
            "block_size": 32,
        }
    )
    environment: Mapping[str, str] = field(
        default_factory=lambda: {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_WAIT_POLICY": "passive",
            # What Ray gives its workers, and the quickest on two cores, which others use, too.
            "OMP_NUM_THREADS": "1",
        }
    )
    llm_config: Mapping[str, Any] = field(default_factory=lambda: {"accelerator_config": {"kind": "cpu"}})
    """What else ``ray.serve.llm`` must be told."""

    def for_ray(self) -> dict[str, Any]:
        """Return ``LLMConfig``'s fields."""
        return {
            "model_loading_config": {"model_id": MODEL, "model_source": self.model_source},
            "engine_kwargs": dict(self.engine_kwargs),
            "runtime_env": {"env_vars": dict(self.environment)},
            "deployment_config": {"num_replicas": 1},
            **self.llm_config,
        }

    def for_vllm(self) -> list[str]:
        """Return the arguments of vLLM's own server."""
        arguments = ["--model", self.model_source, "--served-model-name", MODEL]
        for name, value in self.engine_kwargs.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{option}" if value else f"--no-{option}")
            else:
                arguments += [f"--{option}", value if isinstance(value, str) else json.dumps(value)]
        return arguments


# -- peers that are one command ---------------------------------------------------------------------


class Command:
    """A server that one command starts."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name, self.model = name, MODEL
        self._arguments, self._environment = list(arguments), dict(environment)
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix=f"peer-{name}-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def folder(self) -> Path:
        """Return a folder that lives as long as the server."""
        return Path(self._folder.name)

    def start(self) -> None:
        """Return once it answers."""
        self.launch()
        await_answer(self, self.ended, self.told)

    def launch(self) -> None:
        """Start it, and do not wait."""
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [*self._arguments, "--port", str(self._port)],
                env=child_environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                process_group=0,  # see LocalCluster: not a session of its own
            )

    def ended(self) -> int | None:
        """Return the exit code of a server that has ended."""
        return self._process.poll() if self._process is not None else None

    def told(self) -> str:
        """Return the end of its log."""
        return (self.folder / "log").read_text()[-2000:]

    def terminate(self) -> None:
        """Ask it to end, itself alone: what it has started is its own affair."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it and what it has started."""
        if self._process is not None:
            end_processes(self.processes())
            self._process.wait()
        self._folder.cleanup()

    def processes(self) -> list[psutil.Process]:
        """Return its processes."""
        return family(self._process.pid) if self._process is not None else []


def vllm_server(settings: EngineSettings) -> Command:
    """Return vLLM's own OpenAI server."""
    # The CPU build has no `vllm` command: its distribution is not called vllm.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    environment = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1", **settings.environment}
    return Command("vllm", [*command, *settings.for_vllm()], environment)


def scripted_server(script: Script) -> Command:
    """Return the least server, over a script."""
    command = [sys.executable, "-m", "benchmarks.parts.scripted_server"]
    times = [
        "--time-to-first-token",
        str(script.time_to_first_token),
        "--inter-token",
        str(script.inter_token),
    ]
    return Command("scripted", [*command, *times], {"PYTHONPATH": python_path(ROOT)})


class LiteLLM(Command):
    """LiteLLM's proxy in front of a peer that is started before it and stopped after it."""

    def __init__(self, behind: Peer) -> None:
        # It listens on loopback: without a key, it has nothing to check.
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        super().__init__("litellm", [], environment)
        self._behind = behind

    def start(self) -> None:
        """Return once it answers. Raises CommandError if it is not installed."""
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(litellm_proxy.config(MODEL, self._behind.url)))
        command = [str(litellm_proxy.command()), "--config", str(path), "--host", "127.0.0.1"]
        self._arguments = [*command, "--telemetry", "False"]
        take_up(self._behind)
        super().start()

    def processes(self) -> list[psutil.Process]:
        """Return its processes and those of the server behind it."""
        return super().processes() + self._behind.processes()

    def stop(self) -> None:
        """End the proxy alone."""
        if self._process is not None:
            end_processes(family(self._process.pid))
            self._process.wait()
        self._folder.cleanup()


# -- peers on Ray Serve -----------------------------------------------------------------------------


class OnServe:
    """One Serve application on a Ray cluster of its own, deployed as ``serve deploy`` does."""

    def __init__(self, name: str, application: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.name, self.model = name, MODEL
        self._application, self._environment = dict(application), dict(environment)
        self._port = free_port()
        self._cluster: LocalCluster | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Return once it answers."""
        cluster = LocalCluster(ROOT, environment={"PYTHONPATH": python_path(ROOT), **self._environment})
        cluster.env |= haproxy_settings(cluster.folder) if HAPROXY in self._environment else {}
        self._cluster = cluster.__enter__()
        http = {"host": "127.0.0.1", "port": self._port}
        config = {"http_options": http, "applications": [self._application_in(cluster.folder)]}
        cluster.put(config)
        await_answer(self, lambda: None, self._told)

    def _application_in(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - for those that need a file
        return self._application

    def _told(self) -> str:
        assert self._cluster is not None  # noqa: S101 - it has been started
        told = self._cluster.api("GET", "/api/serve/applications/").json()["applications"]
        return "\n".join(f"{name}: {app['status']} {app['message'][-1000:]}" for name, app in told.items())

    def stop(self) -> None:
        """End the cluster."""
        if self._cluster is not None:
            self._cluster.stop()

    def processes(self) -> list[psutil.Process]:
        """Return the cluster's processes."""
        return self._cluster.processes() if self._cluster is not None else []


GRPC = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
TUNED = GRPC | {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", HAPROXY: "1"}
DIRECT = TUNED | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}


def ray_llm(
    name: str, fields: Mapping[str, Any], environment: Mapping[str, str], *, batching: bool = False
) -> OnServe:
    """Return ``ray.serve.llm``'s ``build_openai_app``; with ``batching``, as it comes."""
    experimental = dict(fields.get("experimental_configs", {}))
    if not batching:
        experimental["stream_batching_interval_ms"] = 0
    application = {
        "name": "peer",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [{**fields, "experimental_configs": experimental}]},
    }
    return OnServe(name, application, environment)


def scripted_llm(script: Script, settings: EngineSettings) -> dict[str, Any]:
    """Return the fields of an ``LLMConfig`` whose engine is a script."""
    return settings.for_ray() | {
        "server_cls": "benchmarks.parts.scripted_llm:ScriptedLLMServer",
        "experimental_configs": {SCRIPT: asdict(script)},
    }


class Interlock(OnServe):
    """Interlock, with a chain of one step."""

    def __init__(self, name: str, engine: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        super().__init__(name, {}, environment)
        self._engine = dict(engine)

    def _application_in(self, folder: Path) -> dict[str, Any]:
        path = folder / "model-set.yaml"
        chain = {
            "deadline": "60s",
            "steps": [{"id": "answer", "generate": {"engine": "writer"}}],
            "answer": "answer",
            "samples": [
                # Without a limit a small model tells on until its context is full.
                {
                    "messages": [{"role": "user", "content": "1, 2, 3: tell a story."}],
                    "params": {"max_tokens": 16},
                }
            ],
        }
        model_set = {"name": "overhead", "engines": {"writer": self._engine}, "chains": {MODEL: chain}}
        path.write_text(yaml.safe_dump(model_set))
        return interlock_application(str(path))


def interlock_engine(settings: EngineSettings) -> dict[str, Any]:
    """Return the engine of a model set with the same model and settings."""
    return {"kind": "vllm", "llm_config": settings.for_ray()}


def interlock_script(script: Script, tokens: int) -> dict[str, Any]:
    """Return a scripted engine of a model set with the same times."""
    return {
        "kind": "fake",
        "time_to_first_token": f"{script.time_to_first_token * 1000:g}ms",
        "inter_token": f"{script.inter_token * 1000:g}ms",
        "tokens": tokens,
    }


# -- peers that run already -------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A server that somebody else has started: it is asked, and nothing is known of its processes."""

    name: str
    url: str
    model: str

    def start(self) -> None:
        """Return once it answers."""
        await_answer(self, lambda: None, lambda: "")

    def stop(self) -> None:
        """Leave it alone."""

    def processes(self) -> list[psutil.Process]:
        """Return nothing: they may be on another machine."""
        return []
