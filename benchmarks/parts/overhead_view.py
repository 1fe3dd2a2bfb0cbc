"""What ``overhead.py`` shows of its samples: summaries over repetitions, tables, a picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.parts.output import blank, error_bars
from benchmarks.parts.samples import percentile

_FINEST_MS, _STEP = 0.01, 1.1
"""Buckets of the histogram: each is a tenth wider than the one before it."""

_DIGITS = 3

Sample = Mapping[str, Any]


def significant(value: float) -> float:
    """Return ``value`` with three significant digits: a report with all its samples stays small."""
    return float(f"{value:.{_DIGITS}g}")


def histogram(samples: Sequence[float]) -> dict[str, Any]:
    """Return exact percentiles and how many samples fell into each bucket, by the bucket's number.

    Bucket n is from ``0.01 * 1.1**n`` ms on; what is below the first is in it.
    """
    buckets = Counter(
        max(0, math.floor(math.log(max(value, _FINEST_MS) / _FINEST_MS, _STEP))) for value in samples
    )
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    exact = {
        name: significant(percentile(samples, share) or 0.0) if samples else None
        for name, share in shares.items()
    }
    return {"count": len(samples), **exact, "buckets": {str(n): buckets[n] for n in sorted(buckets)}}


# -- summaries --------------------------------------------------------------------------------------


def _cpu_per_1000(sample: Sample) -> float | None:
    """Return None, too, of a server that somebody else has started: nothing is known of its processes."""
    tokens = sample["tokens_per_second"] * sample["seconds"]
    return sum(sample["cpu_s"].values()) * 1000.0 / tokens if tokens and sample["cpu_s"] else None


def _stolen_cores(sample: Sample) -> float | None:
    stolen = sample["stolen_cpu_s"]
    return None if stolen is None else stolen / sample["seconds"]


_FIGURES: dict[str, Callable[[Sample], float | None]] = {
    "tokens_per_second": lambda sample: sample["tokens_per_second"],
    "ttft_p50_ms": lambda sample: percentile(sample["ttft_ms"], 0.5),
    "ttft_p99_ms": lambda sample: percentile(sample["ttft_ms"], 0.99),
    "gap_p50_ms": lambda sample: sample["gaps_ms"]["p50"],
    "gap_p99_ms": lambda sample: sample["gaps_ms"]["p99"],
    "cpu_s_per_1000_tokens": _cpu_per_1000,
    "generator_cpu": lambda sample: sample["generator_cpu"],
    "idle_cpu_s": lambda sample: sample["idle_cpu_s"],
    "stolen_cores": _stolen_cores,
}


def summary(samples: Sequence[Sample], baseline: str) -> list[dict[str, Any]]:
    """Return, for each number of streams and each peer, each figure as [median, least, most] of repetitions.

    ``..._ratio`` is that to the baseline, as it was measured in the same group and the same repetition.
    """
    found = []
    for streams, peer in dict.fromkeys((sample["streams"], sample["peer"]) for sample in samples):
        own = [s for s in samples if (s["streams"], s["peer"]) == (streams, peer)]
        row: dict[str, Any] = {"streams": streams, "peer": peer, "repetitions": len(own)}
        for name, figure in _FIGURES.items():
            row[name] = _spread(figure(sample) for sample in own)
            if name in _COMPARED and peer != baseline:
                pairs = ((figure(s), figure(base)) for s, base in _paired(own, samples, baseline))
                row[f"{name}_ratio"] = _spread(mine / its for mine, its in pairs if mine and its)
        row["cpu_s"] = _by_kind(own, "cpu_s")
        row["rss_mb"] = _by_kind(own, "rss_mb")
        found.append(row)
    return sorted(found, key=lambda row: row["streams"])


_COMPARED = ("tokens_per_second", "ttft_p50_ms", "gap_p99_ms", "cpu_s_per_1000_tokens")


def _paired(
    own: Iterable[Sample], samples: Sequence[Sample], baseline: str
) -> Iterator[tuple[Sample, Sample]]:
    same = ("group", "repetition", "streams")
    bases = {tuple(s[name] for name in same): s for s in samples if s["peer"] == baseline}
    for sample in own:
        base = bases.get(tuple(sample[name] for name in same))
        if base is not None:
            yield sample, base


def _spread(values: Iterable[float | None]) -> list[float] | None:
    told = [value for value in values if value is not None]
    if not told:
        return None
    return [significant(value) for value in (median(told), min(told), max(told))]


def _by_kind(samples: Sequence[Sample], name: str) -> dict[str, float]:
    kinds = dict.fromkeys(kind for sample in samples for kind in sample[name])
    return {kind: significant(median(sample[name].get(kind, 0.0) for sample in samples)) for kind in kinds}


# -- tables -----------------------------------------------------------------------------------------


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Yield one table of latencies per number of streams, and one of what the known processes use."""
    for streams in dict.fromkeys(row["streams"] for row in result["summary"]):
        yield _latencies(result, [row for row in result["summary"] if row["streams"] == streams])
    if any(row["cpu_s"] for row in result["summary"]):
        yield _processes(result)


def _latencies(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    config, script = result["config"], result["config"]["script"]
    title = (
        f"{rows[0]['streams']} streams, {config['engine']}: median (least..most) of {config['repetitions']}"
    )
    table = Table("", *(row["peer"] for row in rows), title=title)
    for name, figure in _SHOWN:
        table.add_row(name, *(_range(row.get(figure)) for row in rows))
    if script:
        for name, figure, of_script in _ADDED:
            over = script[of_script] * 1000.0
            table.add_row(
                name, *(_range(row[figure] and [each - over for each in row[figure]]) for row in rows)
            )
    for name, figure in _USED:
        table.add_row(name, *(_range(row.get(figure)) for row in rows))
    return table


_SHOWN = (
    ("tokens per second", "tokens_per_second"),
    ("- to the baseline", "tokens_per_second_ratio"),
    ("TTFT p50 ms", "ttft_p50_ms"),
    ("- to the baseline", "ttft_p50_ms_ratio"),
    ("TTFT p99 ms", "ttft_p99_ms"),
    ("inter-token p50 ms", "gap_p50_ms"),
    ("inter-token p99 ms", "gap_p99_ms"),
)
_ADDED = (
    ("TTFT p50 over the script ms", "ttft_p50_ms", "time_to_first_token"),
    ("inter-token p99 over the script ms", "gap_p99_ms", "inter_token"),
)
_USED = (
    ("CPU s per 1,000 tokens", "cpu_s_per_1000_tokens"),
    ("- to the baseline", "cpu_s_per_1000_tokens_ratio"),
    ("load generator, share of a core", "generator_cpu"),
    ("taken by other machines on the host, cores", "stolen_cores"),
)


_WHOLE_FROM = 1000
"""Numbers from here on are shown whole: with three digits, Python writes 5e+03."""


def _range(spread: Sequence[float] | None) -> str:
    if spread is None:
        return "-"
    middle, least, most = (f"{value:,.0f}" if value >= _WHOLE_FROM else f"{value:.3g}" for value in spread)
    return middle if least == most else f"{middle} ({least}..{most})"


def _processes(result: Mapping[str, Any]) -> Table:
    streams = max(row["streams"] for row in result["summary"])
    seconds = result["config"]["seconds"]
    table = Table("peer", "process", "CPU share of a core", "RSS MB", title=f"processes at {streams} streams")
    for row in result["summary"]:
        if row["streams"] != streams:
            continue
        for kind, cpu in sorted(row["cpu_s"].items(), key=lambda each: -each[1]):
            table.add_row(row["peer"], kind, f"{cpu / seconds:.1%}", f"{row['rss_mb'].get(kind, 0):,.0f}")
        table.add_row(row["peer"], "all", "", f"{sum(row['rss_mb'].values()):,.0f}", end_section=True)
    idle = max(row["idle_cpu_s"][2] for row in result["summary"])
    table.caption = f"suspended peers used at most {idle:g} s of CPU in {seconds:g} s"
    return table


# -- a picture --------------------------------------------------------------------------------------


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw throughput, TTFT and inter-token latency over the number of streams, as PNG."""
    figure = blank(14, 4.5)
    levels = result["config"]["streams"]
    panels = {
        "tokens_per_second": "tokens per second",
        "ttft_p50_ms": "time to first token, p50 ms",
        "gap_p99_ms": "inter-token latency, p99 ms",
    }
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for peer in dict.fromkeys(row["peer"] for row in result["summary"]):
            rows = [row for row in result["summary"] if row["peer"] == peer and row[name]]
            error_bars(axes, [row["streams"] for row in rows], [row[name] for row in rows], label=peer)
        axes.set(xscale="log", xlabel="streams in flight", title=title, ylim=(0, None))
        axes.set_xticks(levels, labels=map(str, levels))
        axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=110)
