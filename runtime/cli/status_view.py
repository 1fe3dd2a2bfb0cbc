"""``interlock status`` as tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime.core.digest import SHORT

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
    table = Table("release", "model set", "state", "since", "leases", "what it waits for", title="releases")
    for release in status["releases"]:
        state = release["state"]
        since = time.time() - release["entered"].get(state, time.time())
        table.add_row(
            str(release["number"]),
            Text(f"{release['name'] or '-'} {(release['model_set'] or '')[:SHORT]}"),
            Text(state, _STYLES.get("failed" if release["outcome"] == "failed" else state, "")),
            f"{since:.0f} s",
            str(release["leases"]),
            Text(_waits_for(release, status)),
        )
    return table


def _waits_for(release: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    if release["reason"]:
        return str(release["reason"]).splitlines()[0]
    digests = {engine["digest"] for engine in release["engines"].values()}
    match release["state"]:
        case "loading":
            missing = [e for e in status["engines"] if e["digest"] in digests and e["state"] != "loaded"]
            paused = "; requests wait" if status["paused"] else ""
            return f"{len(missing)} of {len(digests)} engines to load{_of_about(release, 'load ')}{paused}"
        case "warming":
            return f"{release['progress'] or 'warm-up'}{_of_about(release, 'warm ')}"
        case "verifying":
            return "; ".join(release["faults"]) or "gateways to prepare"
        case "standby" if release["held"]:
            return f"held: interlock promote {release['number']}"
        case "live":
            return _waits_for_gateways(release, status)
        case "draining":
            return _waits_for_leases(release)
    return ""


def _of_about(release: Mapping[str, Any], step: str) -> str:
    """Return how long the slowest of these steps took last time."""
    known = [seconds for name, seconds in release["expected_s"].items() if name.startswith(step)]
    return f", about {max(known):.0f} s in all" if known else ""


def _waits_for_leases(release: Mapping[str, Any]) -> str:
    if not release["leases"]:
        return "draining: idle engines, or gateways to follow"
    oldest = release["oldest_lease_s"] or 0.0
    return f"draining: {release['leases']} leases, oldest {oldest:.0f} s"


def _waits_for_gateways(release: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    lagging = [gateway["id"] for gateway in status["gateways"] if gateway["lagging"]]
    if lagging:
        return f"out of readiness, for they did not follow: {', '.join(lagging)}"
    if release["acknowledged"] is None:
        return "gateways to acknowledge"
    share = release["prefix_cache"]["hit_rate"]
    first = f"{release['prefix_cache']['requests']} first requests"
    return f"prefix cache hits of the {first}: {share:.0%}" if share is not None else ""


def _engines(status: Mapping[str, Any]) -> Table:
    table = Table("engine", "kind", "state", "progress", "releases", title="engines")
    for engine in status["engines"]:
        table.add_row(
            engine["digest"][:SHORT],
            engine["kind"] or "-",
            Text(engine["state"], "red" if engine["state"] == "failed" else ""),
            Text(engine["reason"] or engine["progress"] or ""),
            ", ".join(str(number) for number in engine["releases"]),
        )
    return table


def _footer(status: Mapping[str, Any]) -> Text:
    metered = status["metered"]
    return Text(
        f"{len(status['gateways'])} gateways; metered {metered['prompt_tokens']} prompt and "
        f"{metered['completion_tokens']} completion tokens"
    )
