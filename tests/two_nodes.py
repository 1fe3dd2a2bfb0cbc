"""A Ray cluster of two nodes whose link can be cut: each is a network namespace, with a switch between them.

It needs root and ``ip`` (Debian's iproute2). Only addresses of these namespaces are used: nothing here can be
reached from another machine, nor reaches one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.parts.local_cluster import LocalCluster, end_processes, free_port
from runtime.errors import CommandError

HEAD, WORKER = "10.213.7.1", "10.213.7.2"
_CLONE_NEWNET = 0x40000000
_JOIN_S = 60.0


def ip(*arguments):
    subprocess.run([_ip(), *arguments], check=True, capture_output=True, text=True)


def _ip():
    found = shutil.which("ip")
    if found is None or os.geteuid() != 0:
        raise CommandError("two nodes need network namespaces: run this as root, with iproute2 installed")
    return found


@contextmanager
def inside(namespace):
    """Be in a network namespace: what this thread connects to in here is reached from there."""
    with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{namespace}").open() as there:
        _enter(there)
        try:
            yield
        finally:
            _enter(before)


def _enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace.name}")


class Switch:
    """Two namespaces with an address each, and a third one between them that passes on what they send."""

    def __init__(self):
        self.name = f"interlock-{os.getpid()}"
        self.head, self.worker = self.nodes = f"{self.name}-head", f"{self.name}-worker"

    def __enter__(self):
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self):
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "add", "switch", "type", "bridge")
        ip("-n", self.name, "link", "set", "switch", "up")
        for node, address in ((self.head, HEAD), (self.worker, WORKER)):
            ip("netns", "add", node)
            port = "head" if node is self.head else "worker"
            ip(
                *("link", "add", "eth0", "netns", node, "type", "veth"),
                *("peer", "name", port, "netns", self.name),
            )
            ip("-n", self.name, "link", "set", port, "master", "switch", "up")
            ip("-n", node, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", node, "link", "set", device, "up")

    def __exit__(self, *_):
        for namespace in (self.head, self.worker, self.name):
            subprocess.run([_ip(), "netns", "delete", namespace], check=False, capture_output=True)

    def cut(self):
        """From now on what one node sends is lost; neither is told so."""
        ip("-n", self.name, "link", "set", "worker", "nomaster")

    def mend(self):
        ip("-n", self.name, "link", "set", "worker", "master", "switch")


class TwoNodes(LocalCluster):
    """The cluster. What is declared to need ``head`` is placed on the first node, ``worker`` on the other."""

    host = HEAD
    options = ('--resources={"head":1000}', "--object-store-memory=100000000")

    def __init__(self, root, store_url, switch):
        self.switch = switch
        self.inside = (_ip(), "netns", "exec", switch.head)
        self._worker: subprocess.Popen[bytes] | None = None
        super().__init__(root, store_url)

    def _start(self):
        super()._start()
        command = [
            *(_ip(), "netns", "exec", self.switch.worker),
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *(f"--address={HEAD}:{self.gcs_port}", f"--node-ip-address={WORKER}", "--num-cpus=16"),
            *('--resources={"worker":1000}', "--object-store-memory=100000000"),
            f"--dashboard-agent-listen-port={free_port()}",
        ]
        with (self.folder / "worker.log").open("wb") as log:
            self._worker = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        end = time.monotonic() + _JOIN_S
        while self._nodes() < 2:
            if time.monotonic() > end or self._worker.poll() is not None:
                raise CommandError(
                    f"the other node did not come:\n{(self.folder / 'worker.log').read_text()[-2000:]}"
                )
            time.sleep(0.5)

    def _nodes(self):
        told = self.api("GET", "/nodes?view=summary").json()
        return sum(node["raylet"].get("state") == "ALIVE" for node in told["data"]["summary"])

    def api(self, method, path, body=None):
        with inside(self.switch.head):
            return super().api(method, path, body)

    def processes(self):
        return [*super().processes(), *self.of_worker()]

    def of_worker(self):
        """Return the processes of the second node."""
        if self._worker is None or self._worker.poll() is not None:
            return []
        ray = psutil.Process(self._worker.pid)
        return [*ray.children(recursive=True), ray]

    def stop(self):
        end_processes(self.of_worker(), 1.0)
        if self._worker is not None:
            self._worker.wait()
        super().stop()


class Caller(threading.Thread):
    """A client on one of the nodes: one chat request after the other, until it is told to ``end``."""

    def __init__(self, namespace, port, body, pause=0.1):
        super().__init__(daemon=True)
        self.namespace, self.url, self.body, self.pause = namespace, f"http://127.0.0.1:{port}", body, pause
        self.done: list[tuple[float, float, Any]] = []
        """When each began and ended, and its answer or what it failed by."""
        self._ended = threading.Event()

    def run(self):
        with inside(self.namespace), httpx.Client(base_url=self.url, timeout=60.0, trust_env=False) as http:
            while not self._ended.wait(self.pause):
                began = time.monotonic()
                try:
                    answer = http.post("/v1/chat/completions", json=self.body)
                    told = answer.json() if answer.is_success else f"{answer.status_code} {answer.text}"
                except (httpx.TransportError, ValueError) as error:
                    told = repr(error)
                self.done.append((began, time.monotonic(), told))

    def end(self):
        self._ended.set()
        self.join(timeout=70.0)

    def failed(self):
        return [one for one in self.done if isinstance(one[2], str)]

    def answered(self):
        return [one for one in self.done if not isinstance(one[2], str)]
