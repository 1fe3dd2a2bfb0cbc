"""What ``update.py`` makes of its records: a summary of each peer, a table, a picture."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.parts.open_loop import Record
from benchmarks.parts.output import blank
from benchmarks.parts.report import spread
from benchmarks.parts.samples import percentile

_SAMPLES = 400
"""Raw samples that a report keeps of each peer; summaries are from all."""

_MEMORY_SAMPLES = 200
_CLASSES = ("old", "new", "mixed", "failed")
_TICKS = (1.0, 2.0, 5.0)
"""Where in a decade the axis of TTFT has numbers."""


@dataclass(frozen=True)
class Moments:
    """When the update was what, in the load generator's seconds."""

    begun: float
    """The command was given."""
    switched: float
    """Every new request goes to the new version."""
    finished: float
    """Nothing of the old version is under way."""
    window: float
    """Seconds before the command, and after the switch, that are compared."""
    phases: Sequence[tuple[str, float]] = ()


# -- summaries --------------------------------------------------------------------------------------


def summary(
    records: Sequence[Record], moments: Moments, is_mixed: Callable[[Record], bool], old: int
) -> dict[str, Any]:
    """Return what the clients of one peer saw; seconds count from the command."""
    kinds = [_kind(record, is_mixed, old) for record in records]
    groups = _groups(records, moments)
    first_new = [r.sent for r, kind in zip(records, kinds, strict=True) if kind == "new"]
    last_old = [r.sent for r, kind in zip(records, kinds, strict=True) if kind in {"old", "mixed"}]
    return {
        "requests": len(records),
        "failed": kinds.count("failed"),
        "mixed": kinds.count("mixed"),
        "ttft_ms": {name: _percentiles(group) for name, group in groups.items()},
        "longest_gap_s": _longest_gaps(records, moments),
        "seconds": {
            "to_switch": round(moments.switched - moments.begun, 3),
            "to_finish": round(max(moments.finished, moments.switched) - moments.begun, 3),
            "first_sent_to_new": round(min(first_new) - moments.begun, 3) if first_new else None,
            "last_sent_to_old": round(max(last_old) - moments.begun, 3) if last_old else None,
        },
        "phases": [[name, round(at - moments.begun, 3)] for name, at in moments.phases],
        "errors": sorted({record.error[:200] for record in records if record.error is not None})[:10],
        "samples": _samples(records, kinds, moments.begun),
    }


def _kind(record: Record, is_mixed: Callable[[Record], bool], old: int) -> str:
    if record.error is not None:
        return "failed"
    if is_mixed(record):
        return "mixed"
    return "old" if record.release == old else "new"


def _groups(records: Sequence[Record], moments: Moments) -> dict[str, list[Record]]:
    windows = {
        "before": (moments.begun - moments.window, moments.begun),
        "during": (moments.begun, moments.switched),
        "after": (moments.switched, moments.switched + moments.window),
    }
    return {
        name: [record for record in records if begin <= record.sent < end]
        for name, (begin, end) in windows.items()
    }


def _percentiles(records: Iterable[Record]) -> dict[str, Any]:
    samples = [r.ttft_ms for r in records if r.ttft_ms is not None and r.error is None]
    shares = {"p50": 0.5, "p99": 0.99}
    values = {name: percentile(samples, share) for name, share in shares.items()}
    return {"count": len(samples)} | {
        name: round(value, 1) if value is not None else None for name, value in values.items()
    }


def _longest_gaps(records: Sequence[Record], moments: Moments) -> dict[str, dict[str, float]]:
    """Return the longest time without a byte: of any answer, and within one stream.

    A gap belongs to the update if a part of it lies between the command and the switch, else to what was
    before or after it.
    """
    everything = sorted(at for record in records for at in record.pieces)
    streams = [gap for record in records for gap in pairwise(record.pieces)]
    return {
        "any_answer": _by_time(list(pairwise(everything)), moments),
        "one_stream": _by_time(streams, moments),
    }


def _by_time(gaps: Sequence[tuple[float, float]], moments: Moments) -> dict[str, float]:
    longest = {"before": 0.0, "during": 0.0, "after": 0.0}
    for begin, end in gaps:
        when = "before" if end <= moments.begun else "after" if begin >= moments.switched else "during"
        longest[when] = max(longest[when], end - begin)
    return {when: round(seconds, 3) for when, seconds in longest.items()}


def _samples(records: Sequence[Record], kinds: Sequence[str], begun: float) -> list[list[Any]]:
    """Return requests as [sent s, TTFT ms, ended s, kind, release, hops' versions, longest gap ms]."""
    rows = [_sample(record, kind, begun) for record, kind in zip(records, kinds, strict=True)]
    return thinned(rows, _SAMPLES)


def _sample(record: Record, kind: str, begun: float) -> list[Any]:
    gaps = [(late - early) * 1000.0 for early, late in pairwise(record.pieces)]
    return [
        round(record.sent - begun, 2),
        round(record.ttft_ms) if record.ttft_ms is not None else None,
        round(record.ended - begun, 2) if record.ended is not None else None,
        kind,
        record.release,
        [hop["version"] for hop in record.hops if "version" in hop],
        round(max(gaps)) if gaps else None,
    ]


def thinned(rows: Sequence[Any], limit: int) -> list[Any]:
    """Return at most ``limit`` rows, drawn by lot, in their order."""
    if len(rows) <= limit:
        return list(rows)
    kept = sorted(random.Random(0).sample(range(len(rows)), limit))  # noqa: S311 - not a secret
    return [rows[position] for position in kept]


def memory_summary(samples: Sequence[tuple[float, Mapping[str, float]]], begun: float) -> dict[str, Any]:
    """Return resident memory in MB: before the command, at its peak (by kind of process), and at the end."""
    totals = [(at - begun, sum(kinds.values())) for at, kinds in samples]
    before = [total for at, total in totals if at <= 0.0]
    peak = max(samples, key=lambda sample: sum(sample[1].values()))[1]
    rows = [[round(at, 1), round(total)] for at, total in totals]
    return {
        "before": round(before[-1]) if before else None,
        "peak": round(sum(peak.values())),
        "end": round(totals[-1][1]),
        "at_peak": {kind: round(mb) for kind, mb in sorted(peak.items(), key=lambda each: -each[1])},
        "samples": thinned(rows, _MEMORY_SAMPLES),
    }


# -- a table ----------------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> Table:
    """Return all peers beside each other."""
    peers = result["peers"]
    config = result["config"]
    title = f"an update under {config['rate']:g} requests per second, {config['max_tokens']} tokens each"
    shown = Table("", *map(_label, peers), title=title)
    for name in ("requests", "failed", "mixed"):
        shown.add_row(name, *(str(peer[name]) for peer in peers))
    for when in ("before", "during", "after"):
        rows = [peer["ttft_ms"][when] for peer in peers]
        shown.add_row(f"TTFT ms p50, p99, {when}", *map(_shown_percentiles, rows))
    for share in ("p50", "p99"):
        shown.add_row(f"- {share} after to before", *(_shown_ratio(peer, share) for peer in peers))
    for which, name in (("any_answer", "of any answer"), ("one_stream", "within a stream")):
        gaps = [peer["longest_gap_s"][which] for peer in peers]
        cells = (f"{gap['before']:.2f}, {gap['during']:.2f}, {gap['after']:.2f}" for gap in gaps)
        shown.add_row(f"longest gap s {name}: before, during, after", *cells)
    for key, name in _SECONDS:
        shown.add_row(name, *(_seconds(peer["seconds"][key]) for peer in peers))
    memory = [peer["rss_mb"] for peer in peers]
    cells = (f"{mb['before'] or 0:,}, {mb['peak']:,}, {mb['end']:,}" for mb in memory)
    shown.add_row("RSS MB before, peak, end", *cells)
    shown.add_row("load generator, share of a core", *(f"{peer['generator_cpu']:.1%}" for peer in peers))
    if config["repetitions"] > 1:
        shown.caption = "\n".join(_over_repetitions(peers))
    return shown


def _over_repetitions(peers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what becomes of the TTFT with each peer: median, least and most of its repetitions."""
    for name, share in product(dict.fromkeys(peer["peer"] for peer in peers), ("p50", "p99")):
        ratios = [_ratio(peer, share) for peer in peers if peer["peer"] == name]
        if told := [ratio for ratio in ratios if ratio is not None]:
            yield f"{name}, TTFT {share} after to before: {spread(told)}"


def _label(peer: Mapping[str, Any]) -> str:
    return f"{peer['peer']} {peer['repetition']}" if peer["repetition"] > 1 else str(peer["peer"])


_SECONDS = (
    ("to_switch", "seconds until all new requests go to the new version"),
    ("to_finish", "seconds until nothing is under way on the old one"),
    ("first_sent_to_new", "first request answered by the new one, sent after s"),
    ("last_sent_to_old", "last request that the old one had a part in, sent after s"),
)


def _shown_percentiles(row: Mapping[str, Any]) -> str:
    if not row["count"]:
        return "-"
    return f"{row['p50']:.0f}, {row['p99']:.0f} (of {row['count']})"


def _ratio(peer: Mapping[str, Any], share: str) -> float | None:
    before, after = (peer["ttft_ms"][when][share] for when in ("before", "after"))
    return after / before if before and after else None


def _shown_ratio(peer: Mapping[str, Any], share: str) -> str:
    ratio = _ratio(peer, share)
    return "-" if ratio is None else f"{ratio:.2f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


# -- a picture --------------------------------------------------------------------------------------

_COLOURS = {"old": "tab:blue", "new": "tab:green", "mixed": "tab:red", "failed": "black"}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the TTFT of each request over time, with the update's phases, a panel for each peer, as PNG."""
    peers = result["peers"]
    figure = blank(12, 3.2 * len(peers))
    panels = figure.subplots(len(peers), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    highest = max((row[1] or 1 for peer in peers for row in peer["samples"]), default=1)
    for axes, peer in zip(panels, peers, strict=True):
        _panel(axes, peer, 2.0 * highest)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(_CLASSES))
    panels[-1].set_xlabel("seconds from the command, when sent")
    figure.savefig(path, dpi=110)


def _panel(axes: Any, peer: Mapping[str, Any], top: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415 - see plot

    for kind in _CLASSES:
        rows = [row for row in peer["samples"] if row[3] == kind]
        heights = [top if kind == "failed" or row[1] is None else row[1] for row in rows]
        style = {"color": _COLOURS[kind], "marker": "x" if kind == "failed" else "o", "s": 16}
        axes.scatter([row[0] for row in rows], heights, label=kind, **style)
    axes.axvspan(0.0, peer["seconds"]["to_switch"], color="tab:orange", alpha=0.08)
    for number, (name, at) in enumerate([("command", 0.0), *peer["phases"]]):
        axes.axvline(at, color="grey", linewidth=0.8)
        place = (at, 0.98 - 0.11 * (number % 4))
        style = {"va": "top", "fontsize": "x-small", "color": "dimgrey"}
        axes.annotate(f" {name}", place, xycoords=("data", "axes fraction"), **style)
    memory = axes.twinx()
    memory.plot(*zip(*peer["rss_mb"]["samples"], strict=True), color="tab:grey", linewidth=0.8, alpha=0.6)
    memory.set(ylim=(0, None), ylabel="RSS MB")
    axes.set(
        title=f"{_label(peer)}: {peer['failed']} failed, {peer['mixed']} mixed",
        ylabel="TTFT ms",
        yscale="log",
    )
    axes.yaxis.set_major_locator(LogLocator(subs=_TICKS))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
