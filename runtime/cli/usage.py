"""``interlock usage``: what was spent, by whom and on what."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address
from runtime.cli.tables import Grid, console
from runtime.core.declaration.units import parse_duration
from runtime.core.metering.ledger import GROUPS
from runtime.errors import CommandError
from runtime.settings import Settings

By = StrEnum("By", list(GROUPS))  # type: ignore[misc]  # made from the one list of groups


_TENANT = By("tenant")

_NONE = "(none)"
"""What a table shows in place of an empty name: requests without a key, warm-ups."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """How usage is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def usage(
    by: Annotated[By, typer.Option(help="What it is summed up by.")] = _TENANT,
    since: Annotated[
        str | None, typer.Option(help="A time ago, such as 24h or 7d, or a date, such as 2026-11-25.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.TABLE,
    address: Address = None,
    *,
    forecast: Annotated[
        bool, typer.Option("--forecast", help="When each budget and limit runs out at the present rate.")
    ] = False,
) -> None:
    """Show requests, hops and tokens, as the engines counted them: warm-ups and broken-off requests, too."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        if forecast:
            if since is not None:
                raise CommandError("--forecast looks back by each budget's window: leave --since out")
            print_forecast(client.forecast(), form, time.time())
            return
        _print(client.usage(by.value, _moment(since, time.time())), by.value, form)


def _moment(since: str | None, now: float) -> float:
    """Return what ``--since`` means, in seconds since the Unix epoch. Raises CommandError."""
    if since is None:
        return 0.0
    try:
        return max(0.0, now - parse_duration(since))
    except ValueError:
        pass
    try:
        named = datetime.fromisoformat(since)
    except ValueError as error:
        raise CommandError(f"--since is like 24h, 7d or 2026-11-25, not {since!r}") from error
    return max(0.0, (named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp())


def print_forecast(rows: Sequence[Mapping[str, Any]], form: Format, now: float) -> None:
    """Print when budgets run out: for people in words, else as the admin API returns it."""
    if form is Format.TABLE:
        rows = [_in_words(row, now) for row in rows]
    _print(rows, "id", form)


def _in_words(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    cells = {
        name: row[name] for name in ("id", "tenant", "key", "subject", "unit", "window", "limit", "spent")
    }
    return cells | {"per_hour": f"{row['per_second'] * 3600:.6g}", "runs_out": _when(row["runs_out"], now)}


def _when(at: float | None, now: float) -> str:
    if at is None:
        return "not within its window"
    if at <= now:
        return "it has"
    moment = datetime.fromtimestamp(at).astimezone().isoformat(timespec="minutes")
    return f"{moment}, in {timedelta(seconds=round(at - now))}"


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet runs: names come from clients, and may begin as a formula does."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _print(rows: Sequence[Mapping[str, Any]], by: str, form: Format) -> None:
    columns = [by, *(name for name in (rows[0] if rows else {}) if name != by)]
    match form:
        case Format.JSON:
            sys.stdout.write(json.dumps(rows) + "\n")
        case Format.CSV:
            writer = csv.DictWriter(sys.stdout, columns)
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        case Format.TABLE:
            grid = Grid([name.replace("_", " ") for name in columns])
            for row in rows:
                cells = ["" if row[name] is None else str(row[name]) for name in columns]
                grid.row(cells[0] or _NONE, *cells[1:])
            console().print(grid)
