"""The ``interlock`` command."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.live import Live

from runtime.cli import releases
from runtime.cli.budgets import budgets_app
from runtime.cli.client import AdminClient
from runtime.cli.events import events
from runtime.cli.exits import exit_codes
from runtime.cli.health import health
from runtime.cli.keys import keys_app
from runtime.cli.model_set import validate
from runtime.cli.models import models_app
from runtime.cli.releases import Address
from runtime.cli.status_view import render
from runtime.cli.tables import console
from runtime.cli.usage import usage
from runtime.cli.wait import wait_until_live
from runtime.settings import Settings

app = typer.Typer(
    help="Interlock: swap the models behind AI agents as one set.", no_args_is_help=True, add_completion=False
)
app.add_typer(models_app, name="models", help="Fetch and check the models of the examples.")
app.add_typer(budgets_app, name="budgets", help="Set, list and remove what tenants may spend.")
app.add_typer(keys_app, name="keys", help="Make, list and revoke the API keys of tenants.")

_POLL_S = 0.5

for command in (releases.plan, releases.releases, releases.promote, releases.abort, releases.rollback):
    app.command()(command)
app.command()(releases.retry)
app.command()(releases.audit)
app.command()(events)
app.command()(usage)
app.command()(health)
app.command()(validate)
app.command("wait")(wait_until_live)


@app.command("status")
def show_status(
    address: Address = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until Ctrl-C; in a pipe, one after another.")
    ] = False,
) -> None:
    """Show releases, engines, leases and what a swap is waiting for."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        if as_json:
            _print_json(client, watch=watch)
            return
        shown = console()
        if not watch:
            shown.print(render(client.status()))
            return
        if not shown.is_terminal or shown.is_dumb_terminal:  # there a live display shows its end alone
            while True:
                shown.print(render(client.status()), end="\n\n")
                time.sleep(_POLL_S)
        with Live(console=shown, refresh_per_second=4) as live:
            while True:
                live.update(render(client.status()))
                time.sleep(_POLL_S)


def _print_json(client: AdminClient, *, watch: bool) -> None:
    """Print the status once, or one line for each change."""
    shown = ""
    while True:
        line = json.dumps(client.status().as_json(), sort_keys=True)
        if line != shown:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            shown = line
        if not watch:
            return
        time.sleep(_POLL_S)


if __name__ == "__main__":
    app()
