"""The report of many gateways, engines and sessions: tables, and a picture of cutovers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.parts.output import blank
from benchmarks.parts.samples import percentile


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Yield what was measured, a table for each part."""
    yield _cutover_table(result)
    yield _control_table(result)
    table = Table("engines", "devices", "ms of CPU, median", title="planning a new model set")
    for each in result["planning"]:
        table.add_row(
            str(each["engines"]), str(each["devices"]), _shown([cpu for _, cpu in each["wall_and_cpu_ms"]])
        )
    yield table
    table = Table("sessions", "turns", "us of CPU per turn: first tenth", "last tenth", "store, MB")
    table.title = "reserving and settling a turn"
    for each in result["sessions"]:
        samples = each["us_per_turn_by_tenth"]
        told = (each["sessions"], each["turns"], samples[0], samples[-1], round(each["store_bytes"] / 1e6, 1))
        table.add_row(*(str(value) for value in told))
    yield table


def _shown(samples: Sequence[float], share: float = 0.5) -> str:
    value = percentile(samples, share)
    return "-" if value is None else f"{value:.1f}"


def _cutover_table(result: dict[str, Any]) -> Table:
    config, scenarios = result["config"], result["scenarios"]
    title = f"{config['cutovers']} cutovers of {config['gateways']} gateways, in virtual time"
    table = Table("", *scenarios, title=title)
    columns = [_cutover_column(scenario) for scenario in scenarios.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _cutover_column(scenario: dict[str, Any]) -> dict[str, str]:
    made = scenario["cutovers"]
    acknowledged = [each["acknowledged_ms"] for each in made]
    every = [value for each in acknowledged for value in each]
    out = {gateway for each in made for gateway in each["out_of_readiness_s"]}
    asked, waited = scenario["requests"], scenario["waited_ms"]
    return {
        "commit to acknowledgement, ms: p50": _shown(every),
        "p99": _shown(every, 0.99),
        "the last one's, median": _shown([each[-1] for each in acknowledged]),
        "first to last, median": _shown([each[-1] - each[0] for each in acknowledged]),
        "until the manager waited for no more, median": _shown([each["manager_waited_ms"] for each in made]),
        "gateways put out of readiness": str(len(out)),
        "for s, most": _shown([s for each in made for s in each["out_of_readiness_s"].values()], 1.0),
        "requests": str(sum(asked.values())),
        "refused by gateways out of readiness": str(asked.get("refused", 0)),
        "failed or mixed": str(asked.get("failed", 0) + asked.get("mixed", 0)),
        "waited for the cutover": str(len(waited)),
        "longest wait, ms": _shown(waited, 1.0),
        "the controller's CPU, ms, median": _shown([each["controller_cpu_ms"] for each in made]),
    }


def _control_table(result: dict[str, Any]) -> Table:
    table = Table(
        *("gate-\nways", "re-\nleases", "en-\ngines", "at rest:\nus a report", "bring up:\nus an event"),
        *("events", "cutover:\nus an event", "events", "ms"),
        title="CPU of the controller's loop",
    )
    for each in result["control"]:
        up, cutover = each["bring_up"], each["cutover"]
        numbers = (
            *(each["gateways"], each["releases"], each["engines"], each["at_rest"]["us_per_event"]),
            *(up["us_per_event"], up["events"], cutover["us_per_event"], cutover["events"]),
            cutover["cpu_ms"],
        )
        table.add_row(*(str(number) for number in numbers))
    return table


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw which share of the gateways has acknowledged a cutover by when, of each scenario, as PNG."""
    gateways, made = result["config"]["gateways"], result["config"]["cutovers"]
    figure = blank(9, 5)
    axes = figure.subplots()
    for name, scenario in result["scenarios"].items():
        every = sorted(value for each in scenario["cutovers"] for value in each["acknowledged_ms"])
        asked = gateways * len(scenario["cutovers"])  # one that never acknowledges keeps a curve below 1
        axes.plot(every, [(n + 1) / asked for n in range(len(every))], label=name)
    axes.set(
        xscale="log",
        xlabel="ms from the commit to a gateway's acknowledgement",
        ylabel="share of gateways",
        ylim=(0, 1.02),
        title=f"{made} cutovers of {gateways} gateways, in virtual time",
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
