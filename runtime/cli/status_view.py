"""``interlock status`` as tables."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.text import Text

from runtime.cli.tables import Grid, counted
from runtime.core.declaration.units import span_text
from runtime.core.model_set.digest import SHORT
from runtime.core.views.forms import Status
from runtime.core.views.progress import elapsed_text

_STYLES = {"live": "green", "failed": "red", "draining": "yellow", "standby": "cyan", "retired": "dim"}


def render(status: Status) -> RenderableType:
    """Return the whole status as something rich can print."""
    return Group(_headline(status), releases_table(status), _engines(status), _footer(status))


def _headline(status: Status) -> Text:
    wanted = status.wanted
    if wanted is None:
        return Text("no model set is wanted yet: set user_config of SwapManager")
    text = Text(f"wanted: release {wanted.release} from {wanted.source}: ")
    text.append(wanted.outcome, _STYLES.get(wanted.outcome, ""))
    if wanted.outcome == "failed":
        text.append(f"\n  {wanted.reason}", "red")
        text.append(
            "\n  mend it, then deploy a changed user_config; for the same path, add or change `change:` in it"
        )
    return text


def releases_table(status: Status) -> Grid:
    """Return the releases and what each waits for."""
    heads = ("release", "model set", "state", "for", "leases", "what it waits for")
    grid = Grid(heads, sentences=("model set", "for", "what it waits for"), title="releases")
    for release in status.releases:
        state = release.state
        grid.row(
            str(release.number),
            f"{release.name or '-'} {(release.model_set or '')[:SHORT]}",
            Text(state, _STYLES.get("failed" if release.outcome == "failed" else state, "")),
            _times(release.since, release.expected_in_state_s),
            str(release.leases),
            release.waits_for,
        )
    return grid


def _times(since: float | None, expected: float | None) -> str:
    """Return how long it has been so, and how long that should take where it passes by itself."""
    if since is None:
        return ""
    elapsed = max(0.0, time.time() - since)
    return elapsed_text(elapsed, expected) if expected is not None else span_text(elapsed)


def _engines(status: Status) -> Grid:
    heads = ("engine", "kind", "state", "for", "progress", "releases")
    grid = Grid(heads, sentences=("for", "progress"), title="engines")
    for engine in status.engines:
        grid.row(
            engine.digest[:SHORT],
            engine.kind or "-",
            Text(engine.state, "red" if engine.state == "failed" else ""),
            _times(engine.since, engine.expected_s),
            engine.reason or engine.progress or "",
            ", ".join(str(number) for number in engine.releases),
        )
    return grid


def _footer(status: Status) -> Text:
    metered = status.metered
    text = Text(
        f"{counted(len(status.gateways), 'gateway')}; metered {metered.prompt_tokens} prompt and "
        f"{metered.completion_tokens} completion tokens"
    )
    for release in status.releases:
        cache = release.prefix_cache
        if release.state == "live" and cache.hit_rate is not None:
            first = counted(cache.requests, "first request", "first requests")
            text.append(f"\nrelease {release.number}: {cache.hit_rate:.0%} of the prompts of its {first} ")
            text.append("came from the prefix cache")
    for chain, steps in status.overruns.items():
        counts = ", ".join(f"{step} {count}" for step, count in steps.items())
        text.append(f"\n{chain}: hops over their share of the latency budget: {counts}")
    return text
