"""``interlock budgets``: what tenants and their keys may spend."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.text import Text

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address, AsJson
from runtime.cli.tables import Grid, console
from runtime.core.budgets.budget import CapKind, Per, Unit, Window
from runtime.errors import CommandError
from runtime.settings import Settings

budgets_app = typer.Typer(no_args_is_help=True)

_BUDGET = re.compile(
    r"(?:(?P<unit>\w+)=)?(?P<amount>\d{1,19}(?:\.\d{1,9})?)(?P<times>[kMG]?)(?:/(?P<window>\w+))?", re.ASCII
)
_DIGITS = 20
_TIMES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

_SAME = ("tenant", "key", "per", "unit", "window")
"""Of two budgets in which all this is equal, the later one has replaced the other."""

_COLUMNS = (
    "id",
    "tenant",
    "key",
    "per",
    "subject",
    "unit",
    "window",
    "limit",
    "spent",
    "reserved",
    "warned",
    "kind",
    "hard",
)


@budgets_app.command("set")
def put(
    tenant: Annotated[str, typer.Option(help="Whose spending is capped.")],
    limit: Annotated[
        str | None, typer.Option(help="How much of the unit in each window: a whole number, or money.")
    ] = None,
    cost: Annotated[
        str | None, typer.Option(help="How much money: the same as --unit cost --limit; such as 25.50.")
    ] = None,
    unit: Annotated[Unit, typer.Option(help="What is counted.")] = Unit.TOKENS,
    window: Annotated[Window, typer.Option(help="In which time, by the calendar in UTC.")] = Window.TOTAL,
    per: Annotated[
        Per, typer.Option(help="Whether all of it counts together, or each by itself.")
    ] = Per.TENANT,
    key: Annotated[str, typer.Option(help="Only of this key, by its id.")] = "",
    kind: Annotated[
        CapKind, typer.Option(help="limit: retry in the next window; budget: it is spent.")
    ] = CapKind.BUDGET,
    address: Address = None,
    *,
    soft: Annotated[bool, typer.Option("--soft", help="Warn, and refuse nobody.")] = False,
) -> None:
    """Set a budget or a limit; one that caps the same is replaced, and what is spent of it stays spent."""
    with exit_codes():
        unit, amount = _amount(unit, limit, cost)
        cap = {
            "tenant": tenant,
            "limit": amount,
            "unit": unit.value,
            "window": window.value,
            "per": per.value,
        }
        cap |= {"key": key, "kind": kind.value, "hard": not soft}
        answer = AdminClient(Settings(), address).set_budget(cap)
        for warning in answer["warnings"]:
            typer.echo(f"warning: {warning}", err=True)
        console().print(Text(_set(cap, answer["budgets"])))


def _set(cap: Mapping[str, Any], budgets: Sequence[Mapping[str, Any]]) -> str:
    """Return in a line what was set, with its id: that of the one budget which caps the same.

    Without the id if somebody has removed it meanwhile.
    """
    found = next((b for b in budgets if all(b[name] == cap[name] for name in _SAME)), cap)
    named = f"{cap['kind']} {found['id']}" if "id" in found else str(cap["kind"])
    whose = f"tenant {cap['tenant']}" + (f", key {cap['key']}" if cap["key"] else "")
    whose += f", each {cap['per']} by itself" if cap["per"] != Per.TENANT else ""
    window = "in total" if cap["window"] == Window.TOTAL else f"a {cap['window']}"
    return f"{named} of {whose}: {found['limit']} {cap['unit']} {window} is set"


def budget_of(text: str) -> dict[str, Any]:
    """Return the budget that ``text`` such as ``1M/day`` or ``cost=25.50/month`` stands for.

    Without a unit it counts tokens, without a window it is in total. Raises CommandError.
    """
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise CommandError(f"a budget is like 1M/day, requests=500/hour or cost=25.50/month, not {text!r}")
    amount = Decimal(match["amount"]) * _TIMES[match["times"] or ""]
    unit, window = match["unit"] or Unit.TOKENS.value, match["window"] or Window.TOTAL.value
    is_integer = amount == amount.to_integral_value()
    return {"unit": unit, "limit": int(amount) if is_integer else str(amount), "window": window}


def _amount(unit: Unit, limit: str | None, cost: str | None) -> tuple[Unit, int | str]:
    """Return what is counted, and how much of it. Raises CommandError."""
    if (limit is None) == (cost is None):
        raise CommandError("say how much: either --limit or --cost")
    if cost is not None:
        return Unit.COST, cost
    assert limit is not None  # noqa: S101 - one of the two is there
    return unit, int(limit) if limit.isascii() and limit.isdecimal() and len(limit) <= _DIGITS else limit


@budgets_app.command("list")
def show(address: Address = None, *, as_json: AsJson = False) -> None:
    """List budgets and limits, and how their newest windows stand."""
    with exit_codes():
        budgets = AdminClient(Settings(), address).budgets()
        if as_json:
            sys.stdout.write(json.dumps(budgets, sort_keys=True) + "\n")
            return
        grid = Grid(_COLUMNS)
        for budget in budgets:
            grid.row(*(str(budget[column]) for column in _COLUMNS))
        console().print(grid)


@budgets_app.command("remove")
def remove(
    budget: Annotated[int, typer.Argument(help="Its id, as `interlock budgets list` shows it.")],
    address: Address = None,
) -> None:
    """Remove a budget or a limit, and what it has counted."""
    with exit_codes():
        AdminClient(Settings(), address).remove_budget(budget)
