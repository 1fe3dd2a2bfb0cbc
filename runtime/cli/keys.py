"""``interlock keys``: API keys of tenants, made, listed and revoked."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from runtime.cli.budgets import budget_of
from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address, AsJson
from runtime.cli.tables import Grid, console
from runtime.settings import Settings

keys_app = typer.Typer(no_args_is_help=True)


@keys_app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whom the requests with this key are for.")],
    name: Annotated[str, typer.Option(help="A name to distinguish the key from the tenant's others.")] = "",
    budget: Annotated[
        list[str] | None,
        typer.Option(help="What the key alone may spend, like 1M/day or cost=25.50/month. May be repeated."),
    ] = None,
    address: Address = None,
) -> None:
    """Make an API key and print it. It is shown this once: only its hash is kept."""
    with exit_codes():
        budgets = [budget_of(text) for text in budget or ()]
        made = AdminClient(Settings(), address).create_key(tenant, name, budgets)
        typer.echo(f"{made['id']} for tenant {made['tenant']}; this is shown once:", err=True)
        sys.stdout.write(made["key"] + "\n")  # alone, for $(...)


@keys_app.command("list")
def show(address: Address = None, *, as_json: AsJson = False) -> None:
    """List the API keys, revoked ones too. Their secrets are not known here."""
    with exit_codes():
        keys = AdminClient(Settings(), address).keys()
        if as_json:
            sys.stdout.write(json.dumps(keys, sort_keys=True) + "\n")
            return
        grid = Grid(("id", "begins with", "tenant", "name", "created", "revoked"))
        for key in keys:
            cells = (key[cell] for cell in ("id", "prefix", "tenant", "name"))
            grid.row(*cells, _when(key["created"]), _when(key["revoked"]))
        console().print(grid)


@keys_app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `interlock keys list` shows it.")],
    address: Address = None,
) -> None:
    """End an API key. Requests with it are refused within two seconds; those in flight go on."""
    with exit_codes():
        ended = AdminClient(Settings(), address).revoke_key(key)
        text = f"{ended['id']} of tenant {ended['tenant']} is revoked since {_when(ended['revoked'])}"
        console().print(Text(text))


def _when(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
