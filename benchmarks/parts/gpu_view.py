"""What ``gpu.py`` makes of its records and of vLLM's logs: summaries by phase, and a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table

from benchmarks.parts.open_loop import Record
from benchmarks.parts.report import summary_of
from benchmarks.parts.update_view import thinned

_SAMPLES = 1000
"""Requests that a report keeps; summaries are from all."""


def samples(records: Sequence[Record], begun: float) -> list[list[Any]]:
    """Return requests as [sent s, TTFT ms, longest gap ms, ended s, release]."""
    return thinned([_sample(record, begun) for record in records], _SAMPLES)


def _sample(record: Record, begun: float) -> list[Any]:
    gaps = [(late - early) * 1000.0 for early, late in pairwise(record.pieces)]
    return [
        round(record.sent - begun, 2),
        round(record.ttft_ms, 1) if record.ttft_ms is not None else None,
        round(max(gaps), 1) if gaps else None,
        round(record.ended - begun, 2) if record.ended is not None else None,
        record.release,
    ]


def inter_token(records: Sequence[Record], marks: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Return the times between the pieces of streams, by the phase in which they ended."""
    gaps: dict[str, list[float]] = {name: [] for name, _ in marks}
    for record in records:
        for begin, end in pairwise(record.pieces):
            if name := _phase(marks, end):
                gaps[name].append((end - begin) * 1000.0)
    return {name: summary_of(found) for name, found in gaps.items()}


def first_token(records: Sequence[Record], marks: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Return the times to the first token, by the phase in which a request was sent."""
    times: dict[str, list[float]] = {name: [] for name, _ in marks}
    for record in records:
        if record.ttft_ms is not None and (name := _phase(marks, record.sent)):
            times[name].append(record.ttft_ms)
    return {name: summary_of(found) for name, found in times.items()}


def _phase(marks: Sequence[tuple[str, float]], at: float) -> str | None:
    begun = [name for name, since in marks if since <= at]
    return begun[-1] if begun else None


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
