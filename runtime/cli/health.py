"""``interlock health``: what is wrong, by tier, and an exit code for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import typer
from rich.text import Text

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address, AsJson
from runtime.cli.tables import Grid, console
from runtime.core.health.report import HealthVerdict
from runtime.settings import Settings

_EXITS = {HealthVerdict.HEALTHY: 0, HealthVerdict.DEGRADED: 3, HealthVerdict.UNHEALTHY: 4}
"""1 is an error of any command, and 2 is one that was called wrongly."""

_STYLES = {HealthVerdict.HEALTHY: "green", HealthVerdict.DEGRADED: "yellow", HealthVerdict.UNHEALTHY: "red"}


def health(address: Address = None, *, as_json: AsJson = False) -> None:
    """Show how infrastructure, orchestration and agent are, and what is wrong.

    Exit 0: healthy. 3: degraded, or something is not known. 4: unhealthy. 1: no gateway answers, or it
    refuses.
    """
    with exit_codes():
        report = AdminClient(Settings(), address).health()
        if as_json:
            sys.stdout.write(json.dumps(report, sort_keys=True) + "\n")
        else:
            console().print(_table(report))
        raise typer.Exit(_EXITS[HealthVerdict(report["verdict"])])


def _table(report: Mapping[str, Any]) -> Grid:
    grid = Grid(("tier", "verdict", "what is wrong"), sentences=("what is wrong",))
    for name, tier in report["tiers"].items():
        verdict = HealthVerdict(tier["verdict"])
        grid.row(name, Text(verdict.value, _STYLES[verdict]), "\n".join(tier["reasons"]))
    return grid
