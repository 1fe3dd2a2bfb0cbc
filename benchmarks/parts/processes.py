"""What a peer's processes use, by what they do; and keeping those of idle peers from using anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

_KINDS = (
    # The first whose text is in the process's title, which Ray and vLLM set, or in its command line.
    ("benchmarks.parts.flip_proxy", "proxy"),
    ("VLLM::Worker", "engine worker"),
    ("VLLM::", "engine core"),
    ("ServeReplica:interlock:Gateway", "gateway"),
    ("ServeReplica:interlock:SwapManager", "manager"),
    ("ServeReplica:engine-", "engine replica"),
    (":LLMRouter", "ingress router"),
    ("Ingress", "ingress"),
    ("ServeReplica:", "engine replica"),
    ("ray::ServeController", "serve controller"),
    ("ray::ProxyActor", "proxy"),
    ("ray::HAProxyManager", "proxy manager"),
    ("haproxy", "haproxy"),
    ("ray::IDLE", "idle worker"),
    ("ray::", "other actor"),
    ("raylet", "raylet"),
    ("gcs_server", "gcs"),
    ("ray", "ray's agents"),
    ("vllm.entrypoints", "api server"),
    ("litellm", "litellm"),
    ("scripted_server", "scripted server"),
)


@dataclass(frozen=True)
class Used:
    """CPU seconds and resident memory of processes, by kind."""

    cpu_s: Mapping[str, float]
    rss_mb: Mapping[str, float]

    def since(self, before: Used) -> dict[str, float]:
        """Return the CPU seconds since ``before``."""
        return {kind: seconds - before.cpu_s.get(kind, 0.0) for kind, seconds in self.cpu_s.items()}


class Watched:
    """Processes whose kinds are looked up once, so that reading them is quick."""

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self._processes = [(process, kind) for process in processes if (kind := _kind_of(process))]

    def read(self) -> Used:
        """Return what they have used up to now; one that is gone has used nothing."""
        cpu, rss = defaultdict[str, float](float), defaultdict[str, float](float)
        for process, kind in self._processes:
            with suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                cpu[kind] += times.user + times.system
                rss[kind] += process.memory_info().rss / 2**20
        return Used(dict(cpu), dict(rss))


def stolen_s() -> float | None:
    """Return the CPU seconds that this machine's host gave to others instead; None where that is unknown."""
    return getattr(psutil.cpu_times(), "steal", None)


def _kind_of(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    return next((kind for text, kind in _KINDS if text in line), "other")


def family(root: int) -> list[psutil.Process]:
    """Return a process and all its descendants, it first; nothing if it is gone."""
    try:
        parent = psutil.Process(root)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def suspend(processes: Iterable[psutil.Process]) -> None:
    """Stop processes where they are. They keep their memory and use no CPU."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()


def resume(processes: Iterable[psutil.Process]) -> None:
    """Let processes go on."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()
