"""A Ray cluster of one node, on loopback, for one program: started here, ended here, by process id."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from benchmarks.parts.processes import resume
from runtime.errors import CommandError
from runtime.settings import child_environment

_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_SERVE = (sys.executable, "-m", "ray.serve.scripts")
"""As modules: packages that were unpacked into a folder have no commands."""
_START_S = 60.0
_STOP_S = 5.0
_TRIES, _AGAIN_S = 3, 0.5
_CLUSTER_STOP_S = 1.0
"""Ray answers SIGTERM with a drain of up to 30 s, which a throw-away cluster need not wait for."""
_LOGICAL_CPUS = 16
"""Ray places by declared CPUs, not by cores; engines on a small machine must not wait for each other."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_path(root: Path) -> str:
    """Return where this process finds modules, the benchmarks' first: for processes that it starts.

    On a machine without a network, packages lie unpacked in a folder.
    """
    return ":".join([str(root), *(path for path in sys.path if path and Path(path).is_dir())])


def interlock_application(model_set: str | Mapping[str, Any], gateways: int = 1) -> dict[str, Any]:
    """Return Interlock as an application of a Serve config."""
    return {
        "name": "interlock",
        "route_prefix": "/",
        "import_path": "runtime.serve.app:build",
        "deployments": [
            {"name": "Gateway", "num_replicas": gateways},
            {"name": "SwapManager", "user_config": {"model_set": model_set}},
        ],
    }


class LocalCluster:
    """Use as ``with LocalCluster(root) as cluster``; everything is gone after it, also on Ctrl-C.

    Token authentication is on with a token of this run's own, so that no other user of the machine
    can submit code to it. The store is a SQLite file in the cluster's folder unless ``store_url`` says
    otherwise. ``environment`` is what else the cluster's processes find in theirs.
    """

    host = "127.0.0.1"
    """The node's address, and what its processes listen on."""

    inside: tuple[str, ...] = ()
    """What a command of the cluster is begun with."""

    options: tuple[str, ...] = ()
    """What else ``ray start`` is told."""

    def __init__(
        self, root: Path, store_url: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="interlock-"))
        self.store_url = store_url or f"sqlite:///{self.folder / 'interlock.db'}"
        self.gcs_port, self.dashboard_port = free_port(), free_port()
        self.env = self._environment(root) | dict(environment or {})
        self._ray: subprocess.Popen[bytes] | None = None

    def _environment(self, root: Path) -> dict[str, str]:
        token = self.folder / "ray-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        changes = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"{self.host}:{self.gcs_port}",
            # Workers are niced by default; beside a load generator on the same cores they would starve.
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # This node's address for Ray. vLLM looks for one itself, and without a network finds none.
            "VLLM_HOST_IP": self.host,
            "VLLM_NO_USAGE_STATS": "1",
            "INTERLOCK_STORE_URL": self.store_url,
            "INTERLOCK_ROOT": str(root),
            "INTERLOCK_HAPROXY_ON_LOOPBACK": "1",  # as every config that is deployed here says
        }
        return child_environment(changes)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        command = [
            *(*self.inside, *_RAY, "start", "--head", "--block", f"--node-ip-address={self.host}"),
            *(f"--port={self.gcs_port}", f"--dashboard-port={self.dashboard_port}"),
            *(f"--dashboard-host={self.host}", f"--num-cpus={_LOGICAL_CPUS}", *self.options),
            *(f"--temp-dir={self.folder / 'ray'}", f"--dashboard-agent-listen-port={free_port()}"),
            f"--ray-client-server-port={free_port()}",
        ]
        with (self.folder / "ray.log").open("wb") as log:
            self._ray = subprocess.Popen(  # noqa: S603 - our own arguments
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own keeps Ctrl-C from it. A session of its own would do so, too, but Linux
                # shares cores out by session first: on two cores it kept clients waiting for seconds.
                process_group=0,
            )
        end = time.monotonic() + _START_S
        while not self._answers():
            if self._ray.poll() is not None or time.monotonic() > end:
                raise CommandError(f"Ray did not start:\n{(self.folder / 'ray.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return self.api("GET", "/api/serve/applications/").is_success
        except httpx.TransportError:
            return False

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Call the dashboard's REST API, which the ``serve`` command is a client of."""
        token = (self.folder / "ray-token").read_text()
        headers = {"authorization": f"Bearer {token}"}
        url = self.dashboard + path
        return httpx.request(method, url, json=body, headers=headers, timeout=30.0, trust_env=False)

    def put(self, config: Mapping[str, Any]) -> None:
        """Have a Serve config applied. Raises CommandError if it is refused.

        A dashboard that has just come up may close a connection without an answer. The config says what there
        is to be, so it can be told again.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                answer = self.api("PUT", "/api/serve/applications/", config)
                break
            except httpx.RemoteProtocolError as error:
                if not tries_left:
                    raise CommandError(f"Ray's dashboard does not answer: {error}") from error
                time.sleep(_AGAIN_S)
        if answer.is_error:
            raise CommandError(f"the deploy was refused: {answer.text[-1500:]}")

    @property
    def dashboard(self) -> str:
        """Where ``serve deploy`` finds the cluster."""
        return f"http://{self.host}:{self.dashboard_port}"

    def deploy(self, config: Path) -> None:
        """Run ``serve deploy`` with ``config``. Raises CommandError with what it printed."""
        command = [*self.inside, *_SERVE, "deploy", "-a", self.dashboard, str(config)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise CommandError(f"serve deploy {config} failed:\n{done.stdout}{done.stderr}")

    def stop(self) -> None:
        """End every process that was started, then remove the folder."""
        if self._ray is not None and self._ray.poll() is None:
            end_processes(self.processes(), _CLUSTER_STOP_S)
            self._ray.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Return every process of the cluster, Ray's own and those of replicas."""
        if self._ray is None:
            return []
        ray = psutil.Process(self._ray.pid)
        return [*ray.children(recursive=True), ray]

    def crash(self) -> None:
        """Kill every process at once, as a machine does that loses its power; the folder stays."""
        processes = self.processes()
        for process in processes:
            _signal(process, kill=True)
        psutil.wait_procs(processes, timeout=_STOP_S)
        if self._ray is not None:
            self._ray.wait()

    def restart(self) -> None:
        """Start the cluster anew after a crash: the same ports and store, and nothing deployed."""
        self._start()


def end_processes(processes: list[psutil.Process], patience_s: float = _STOP_S) -> None:
    """Ask processes to end, and kill those that do not within ``patience_s``."""
    for process in processes:
        _signal(process, kill=False)
    resume(processes)  # one that is suspended would not hear of it
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    for process in left:
        _signal(process, kill=True)
    psutil.wait_procs(left, timeout=_STOP_S)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return


HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
"""Serve's variable for HAProxy in front, instead of its proxy in Python."""


def haproxy_settings(folder: Path) -> dict[str, str]:
    """Return where a cluster's HAProxy is, and how much of the machine it takes.

    Unless told otherwise, those of all clusters are in one place, and have four threads each.
    """
    # Ray puts them into a folder of the node's id, and a socket's path must not be longer than 97 characters.
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        # Ray 2.58's default wants 50,000 open files, and HAProxy does not start where it may not have them.
        "RAY_SERVE_HAPROXY_MAXCONN": "4096",
        # On two cores four threads take a quarter more CPU than one, or with ray.serve.llm two fifths.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (psutil.cpu_count() or 1) // 2))),
    }
