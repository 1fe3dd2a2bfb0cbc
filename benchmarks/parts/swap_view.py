"""The report of cutovers under load: a table, and a picture of the times between tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.parts.output import blank
from benchmarks.parts.report import summary_of


def swap_table(result: Mapping[str, Any]) -> Table:
    """Return how long cutovers took, and what streams saw of them."""
    swaps, inter = result["swaps"], result["inter_token_ms"]
    title = f"{len(swaps)} cutovers, {result['requests']} requests"
    table = Table("milliseconds", "number", "p50", "p99", "max", title=title)
    standby = [swap["rollback_ms"] for swap in swaps if swap["from_standby"]]
    draining = [swap["rollback_ms"] for swap in swaps if not swap["from_standby"]]
    rows = [
        ("rollback to a standby: command to last acknowledgement", summary_of(standby)),
        ("rollback in mid-drain: command to last acknowledgement", summary_of(draining)),
        ("admissions kept waiting, worst gateway", summary_of([s["admission_gap_ms"] for s in swaps])),
        ("first to last gateway's acknowledgement", summary_of([s["skew_ms"] for s in swaps])),
        ("inter-token, streams that span a cutover", inter["spanning"]),
        ("inter-token, streams that span none", inter["without"]),
        ("inter-token, within a cutover", inter["within_cutover"]),
    ]
    for name, summary in rows:
        shown = (f"{summary[key]:.2f}" if summary["count"] else "-" for key in ("p50", "p99", "max"))
        table.add_row(name, str(summary["count"]), *shown)
    table.caption = (
        f"{result['failed']} failed, {result['mixed']} mixed; "
        f"inter-token p99, spanning to not spanning: {inter['ratio_p99']}"
    )
    return table


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the longest times between tokens over time, with each cutover, as PNG."""
    figure = blank(12, 4)
    axes = figure.subplots()
    gaps = dict(result["longest_gaps"])
    axes.plot([*gaps], [*gaps.values()], linewidth=0.9, label="longest time between tokens")
    top = max(gaps.values(), default=1.0)
    for from_standby, colour, says in (
        (True, "tab:orange", "cutover to a standby"),
        (False, "tab:green", "cutover amid a drain"),
    ):
        made = [swap for swap in result["swaps"] if swap["from_standby"] is from_standby]
        spans = [(swap["begun_s"], swap["rollback_ms"] / 1000.0) for swap in made]
        axes.broken_barh(spans, (0, top), color=colour, alpha=0.35, label=says)
    axes.set(xlabel="seconds", ylabel="ms", ylim=(0, None), title="tokens of streams across cutovers")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
