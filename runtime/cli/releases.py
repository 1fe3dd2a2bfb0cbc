"""``interlock plan, releases, promote, abort, rollback, retry, audit``: operators' decisions."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.model_set import located, read_inlined
from runtime.cli.plan_view import render_plan
from runtime.cli.status_view import releases_table
from runtime.cli.tables import Grid, console, counted
from runtime.core.views.audit import MAX_AUDIT
from runtime.core.views.forms import ReleaseList, Status, WantedEntry
from runtime.errors import CommandError
from runtime.settings import Settings

_POLL_S = 0.05
_LONGEST_S = 7 * 86_400

Address = Annotated[
    str | None,
    typer.Option(help="Where a gateway answers; default: INTERLOCK_ADDRESS or http://127.0.0.1:8000."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every gateway has acknowledged.")]


def finite(seconds: float) -> float:
    """Return a time to wait that ends. Raises BadParameter."""
    if not 0.0 <= seconds <= _LONGEST_S:
        raise typer.BadParameter(f"seconds are from 0 to {_LONGEST_S}, not {seconds}")
    return seconds


Timeout = Annotated[float, typer.Option(help="Seconds to wait.", callback=finite)]


def plan(
    path: Annotated[Path, typer.Argument(help="The model set's YAML file.")],
    address: Address = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a swap to a model set would load, reuse, need and cost. Touches nothing. Exit 1: no room."""
    with exit_codes():
        planned = _planned(AdminClient(Settings(), address), path)
        if as_json:
            sys.stdout.write(json.dumps(planned, sort_keys=True) + "\n")
        else:
            console().print(render_plan(planned))
        if not planned["fits"]:
            raise CommandError("it does not fit; nothing was touched")


def _planned(client: AdminClient, path: Path) -> dict[str, Any]:
    """Return the plan for a file. A refusal names the file's lines: the server got the content alone."""
    document = read_inlined(path)
    try:
        return client.plan(document.value)
    except CommandError as error:
        raise CommandError(located(document, str(error))) from error


def releases(address: Address = None, *, as_json: AsJson = False) -> None:
    """List the releases: which is live, which can be promoted or rolled back to."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        if as_json:
            sys.stdout.write(json.dumps(client.releases()[0].as_json(), sort_keys=True) + "\n")
        else:
            console().print(releases_table(client.status()))


def promote(
    release: Annotated[int | None, typer.Argument(help="Default: the one that waits to be promoted.")] = None,
    address: Address = None,
    *,
    wait: Wait = True,
    timeout: Timeout = 60.0,
) -> None:
    """Send new requests to a release that is standby, or draining."""
    path = "releases/promote" if release is None else f"releases/{release}/promote"
    _cut_over(address, path, None, timeout if wait else None)


def rollback(
    to: Annotated[int | None, typer.Option(help="Default: the release that was live before.")] = None,
    address: Address = None,
    *,
    wait: Wait = True,
    timeout: Timeout = 60.0,
) -> None:
    """Send new requests to a release that was live before and is still resident."""
    _cut_over(address, "releases/rollback", {"to": to}, timeout if wait else None)


def abort(
    release: Annotated[int | None, typer.Argument(help="Default: the one that is brought up.")] = None,
    address: Address = None,
) -> None:
    """Give up a release that was never live. The live one goes on as it is."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        path = "releases/abort" if release is None else f"releases/{release}/abort"
        after = client.command(path, client.releases()[1])
        number = _wanted_of(after).release if release is None else release
        console().print(f"release {number} is given up; live is release {after.live}", highlight=False)


def retry(
    release: Annotated[int | None, typer.Argument(help="Default: the one that was wanted last.")] = None,
    address: Address = None,
) -> None:
    """Bring up again, as a new release, what has failed or was given up. See then: interlock wait."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        path = "releases/retry" if release is None else f"releases/{release}/retry"
        number = _wanted_of(client.command(path, client.releases()[1])).release
        console().print(f"release {number} is brought up", highlight=False)


def audit(
    address: Address = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_AUDIT, help="How many entries, newest first.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """Show who asked for what, when, and what came of it."""
    with exit_codes():
        entries = AdminClient(Settings(), address).audit(limit)
        if as_json:
            sys.stdout.write(json.dumps(entries, sort_keys=True) + "\n")
            return
        grid = Grid(("when", "who", "what", "from", "to", "outcome", "detail"), sentences=("detail",))
        for entry in entries:
            when = datetime.fromtimestamp(entry["at"]).astimezone().isoformat(timespec="seconds")
            cells = ("actor", "action", "from_release", "to_release", "outcome", "detail")
            grid.row(when, *("" if entry[c] is None else str(entry[c]) for c in cells))
        console().print(grid)


def _cut_over(address: str | None, path: str, body: Mapping[str, Any] | None, timeout: float | None) -> None:
    """Carry a command out that ends in a cutover, and wait for its last acknowledgement."""
    with exit_codes():
        client = AdminClient(Settings(), address)
        etag = client.releases()[1]
        begun = time.monotonic()
        number = _wanted_of(client.command(path, etag, body)).release
        if timeout is None:
            console().print(f"release {number} is to go live", highlight=False)
            return
        gateways = _until_acknowledged(client, number, begun + timeout)
        seconds = time.monotonic() - begun
        console().print(
            f"release {number} is live; {counted(gateways, 'gateway')} acknowledged within {seconds:.2f} s",
            highlight=False,
        )


def _until_acknowledged(client: AdminClient, number: int, end: float) -> int:
    """Return how many gateways route by the release once all do. Raises CommandError."""
    while True:
        status = client.status()
        release, wanted = status.release(number), _wanted_of(status)
        if release is None:
            raise CommandError(f"release {number} is gone")
        if release.outcome == "failed":
            raise CommandError(f"release {number} cannot go live: {release.reason}")
        if wanted.release != number:
            raise CommandError(f"release {wanted.release} is wanted now: somebody was faster")
        if status.live == number and release.acknowledged is not None:
            return len(status.gateways)
        if time.monotonic() > end:
            raise CommandError(f"not acknowledged in time: release {number} is {release.state}")
        time.sleep(_POLL_S)


def _wanted_of(state: Status | ReleaseList) -> WantedEntry:
    """Return what is wanted after a command. Raises CommandError: nothing is."""
    if state.wanted is None:
        raise CommandError("no model set is wanted yet")
    return state.wanted
