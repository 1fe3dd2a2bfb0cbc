"""``interlock events``: what happens to releases and engines, a line each, as it happens."""

from __future__ import annotations

import json
import sys
from datetime import datetime

from rich.text import Text

from runtime.cli.client import AdminClient
from runtime.cli.exits import exit_codes
from runtime.cli.releases import Address, AsJson
from runtime.cli.tables import console
from runtime.core.model_set.digest import SHORT
from runtime.core.views.changes import EngineChange, ReleaseChange
from runtime.settings import Settings


def events(address: Address = None, *, as_json: AsJson = False) -> None:
    """Follow what happens to releases and engines until Ctrl-C, from now on; one line each.

    When the manager or the gateway goes, stderr says so, and the next one is followed.
    """
    with exit_codes():
        shown, errors = console(), console(stderr=True)
        client = AdminClient(Settings(), address)
        for change in client.changes(lambda why: errors.print(Text(why))):
            if as_json:
                sys.stdout.write(json.dumps(change.as_json(), sort_keys=True) + "\n")
                sys.stdout.flush()
            else:
                shown.print(Text(line_of(change)))


def line_of(change: ReleaseChange | EngineChange) -> str:
    """Return a change for people."""
    when = datetime.fromtimestamp(change.at).astimezone().isoformat(timespec="seconds")
    if isinstance(change, ReleaseChange):
        subject = " ".join(filter(None, ("release", str(change.number), change.name)))
    else:
        subject = " ".join(filter(None, ("engine", change.name, change.digest[:SHORT])))
    now = change.to_state or "gone"
    states = now if change.from_state in (None, now) else f"{change.from_state} -> {now}"
    phase = change.phase if isinstance(change, EngineChange) else None
    details = "; ".join(filter(None, (states, phase, (change.reason or "").partition("\n")[0])))
    return f"{when} {subject}: {details}"
