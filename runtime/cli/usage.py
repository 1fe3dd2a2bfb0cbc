"""``interlock usage``: what was spent, by whom and on what."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address
from runtime.core.ledger import GROUPS
from runtime.core.units import parse_duration
from runtime.errors import CommandError
from runtime.settings import Settings

By = StrEnum("By", list(GROUPS))  # type: ignore[misc]  # made from the one list of groups


_TENANT = By("tenant")


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
) -> None:
    """Show requests, hops and tokens, as the engines counted them: warm-ups and broken-off requests, too."""
    with exit_codes():
        told = AdminClient(Settings(), address).usage(by.value, _moment(since, time.time()))
        _print(told, by.value, form)


def _moment(since: str | None, now: float) -> float:
    """Return what ``--since`` means, in seconds since the Unix epoch. Raises CommandError."""
    if since is None:
        return 0.0
    try:
        return now - parse_duration(since)
    except ValueError:
        pass
    try:
        named = datetime.fromisoformat(since)
    except ValueError as error:
        raise CommandError(f"--since is like 24h, 7d or 2026-11-25, not {since!r}") from error
    return (named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp()


def _print(rows: Sequence[Mapping[str, Any]], by: str, form: Format) -> None:
    columns = [by, *(name for name in (rows[0] if rows else {}) if name != by)]
    match form:
        case Format.JSON:
            sys.stdout.write(json.dumps(rows) + "\n")
        case Format.CSV:
            writer = csv.DictWriter(sys.stdout, columns)
            writer.writeheader()
            writer.writerows(rows)
        case Format.TABLE:
            table = Table(*(name.replace("_", " ") for name in columns))
            for row in rows:
                table.add_row(*(Text(str(row[name])) for name in columns))
            Console().print(table)
