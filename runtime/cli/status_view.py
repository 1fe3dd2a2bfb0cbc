"""``interlock status`` as tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime.core.digest import SHORT
from runtime.core.progress import of_about

_STYLES = {"live": "green", "failed": "red", "draining": "yellow", "standby": "cyan", "retired": "dim"}


def render(status: Mapping[str, Any]) -> RenderableType:
    """Return the whole status as something rich can print."""
    return Group(_headline(status), releases_table(status), _engines(status), _footer(status))


def _headline(status: Mapping[str, Any]) -> Text:
    wanted = status["wanted"]
    if wanted is None:
        return Text("no model set is wanted yet: set user_config of SwapManager")
    text = Text(f"wanted: release {wanted['release']} from {wanted['source']}: ")
    text.append(wanted["outcome"], _STYLES.get(wanted["outcome"], ""))
    if wanted["outcome"] == "failed":
        text.append(f"\n  {wanted['reason']}", "red")
        text.append(
            "\n  mend it, then deploy a changed user_config; for the same path, add or change `change:` in it"
        )
    return text


def releases_table(status: Mapping[str, Any]) -> Table:
    """Return the releases and what each waits for."""
    columns = ("release", "model set", "state", "elapsed / expected", "leases", "what it waits for")
    table = Table(*columns, title="releases")
    for release in status["releases"]:
        state = release["state"]
        table.add_row(
            str(release["number"]),
            Text(f"{release['name'] or '-'} {(release['model_set'] or '')[:SHORT]}"),
            Text(state, _STYLES.get("failed" if release["outcome"] == "failed" else state, "")),
            _times(release["since"], release["expected_in_state_s"]),
            str(release["leases"]),
            Text(release["waits_for"]),
        )
    return table


def _times(since: float | None, expected: float | None) -> str:
    return "" if since is None else of_about(max(0.0, time.time() - since), expected)


def _engines(status: Mapping[str, Any]) -> Table:
    columns = ("engine", "kind", "state", "elapsed / expected", "progress", "releases")
    table = Table(*columns, title="engines")
    for engine in status["engines"]:
        table.add_row(
            engine["digest"][:SHORT],
            engine["kind"] or "-",
            Text(engine["state"], "red" if engine["state"] == "failed" else ""),
            _times(engine["since"], engine["expected_s"]),
            Text(engine["reason"] or engine["progress"] or ""),
            ", ".join(str(number) for number in engine["releases"]),
        )
    return table


def _footer(status: Mapping[str, Any]) -> Text:
    metered = status["metered"]
    text = Text(
        f"{len(status['gateways'])} gateways; metered {metered['prompt_tokens']} prompt and "
        f"{metered['completion_tokens']} completion tokens"
    )
    for chain, steps in status["overruns"].items():
        counts = ", ".join(f"{step} {count}" for step, count in steps.items())
        text.append(f"\n{chain}: hops over their share of the latency budget: {counts}")
    return text
