"""The ``interlock`` command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from runtime.cli import releases
from runtime.cli.budgets import budgets_app
from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.health import health
from runtime.cli.keys import keys_app
from runtime.cli.models import models_app
from runtime.cli.releases import Address, Timeout
from runtime.cli.serve_config import change_of
from runtime.cli.status_view import render
from runtime.cli.usage import usage
from runtime.errors import CommandError, Unavailable
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
app.command()(usage)
app.command()(health)


@app.command("status")
def show_status(
    address: Address = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until Ctrl-C.")] = False,
) -> None:
    """Show releases, engines, leases and what a swap is waiting for."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        if as_json:
            _print_json(client, watch=watch)
            return
        console = Console()
        if not watch:
            console.print(render(client.status()))
            return
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                live.update(render(client.status()))
                time.sleep(_POLL_S)


def _print_json(client: AdminClient, *, watch: bool) -> None:
    """Print the status once, or one line for each change."""
    shown = ""
    while True:
        line = json.dumps(client.status(), sort_keys=True)
        if line != shown:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            shown = line
        if not watch:
            return
        time.sleep(_POLL_S)


@app.command("wait")
def wait_until_live(
    address: Address = None,
    timeout: Timeout = 600.0,
    config: Annotated[
        Path | None, typer.Option(help="Wait for the change that this Serve config asks for.")
    ] = None,
    model_set: Annotated[
        str | None, typer.Option(help="Wait for this model_set, as user_config names it.")
    ] = None,
) -> None:
    """Wait until the wanted model set is live. Exit 0 when it is, 1 with the reason when it failed.

    `serve deploy` returns before the manager has heard of the change: name the config that was deployed
    to wait for that change. Without it, whatever is wanted now is waited for.
    """
    with exit_codes():
        client = AdminClient(Settings(), address)
        end = time.monotonic() + timeout
        change = change_of(config) if config is not None else None

        def meant(wanted: Mapping[str, Any]) -> bool:
            return model_set in (None, wanted["source"]) and change in (None, wanted["change"])

        status = _wait(client, meant, end)
        wanted = status["wanted"]
        if wanted["outcome"] == "failed":
            raise CommandError(f"release {wanted['release']} failed: {wanted['reason']}")
        Console().print(f"release {wanted['release']} from {wanted['source']} is live", highlight=False)


def _wait(client: AdminClient, meant: Callable[[Mapping[str, Any]], bool], end: float) -> Mapping[str, Any]:
    """Return the status in which the wish is settled. Raises CommandError after ``end``.

    After a restart of the cluster a release is live by the journal while its engines come up again: then it
    is settled once the gateway that answers is ready.
    """
    seen = "nothing answered"
    while True:
        try:
            status = client.status()
            wanted = status["wanted"]
            seen = (
                f"release {wanted['release']} is {wanted['outcome']}" if wanted else "no model set is wanted"
            )
            if wanted is not None and meant(wanted) and wanted["outcome"] != "in progress":
                if wanted["outcome"] != "live" or client.ready():
                    return status
                seen = f"release {wanted['release']} is live, and the gateway is not ready yet"
        except Unavailable as error:
            seen = str(error)
        if time.monotonic() > end:
            raise CommandError(f"not live in time: {seen}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    app()
