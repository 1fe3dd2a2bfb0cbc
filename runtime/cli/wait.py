"""``interlock wait``: until a model set is live, showing meanwhile what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.status import Status as Line
from rich.text import Text

from runtime.cli.client import AdminClient
from runtime.cli.exits import HELD, exit_codes
from runtime.cli.releases import Address, Timeout
from runtime.cli.serve_config import change_of
from runtime.cli.tables import console
from runtime.core.views.forms import Status, WantedEntry
from runtime.core.views.progress import elapsed_text
from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

_POLL_S = 0.5
_REPEAT_S = 10.0
"""How often a log repeats a line that has not changed: silence looks like a hang."""


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

    Exit 5, at once, when it has come up and its `cutover: manual` waits for `interlock promote`.

    `serve deploy` returns before the manager has heard of the change: name the config that was deployed
    to wait for that change. Without it, whatever is wanted now is waited for. Meanwhile stderr shows the
    progress.
    """
    with exit_codes():
        change = change_of(config) if config is not None else None
        client = AdminClient(Settings(), address)
        end = time.monotonic() + timeout

        def meant(wanted: WantedEntry) -> bool:
            return model_set in (None, wanted.source) and change in (None, wanted.change)

        with ProgressLine() as progress:
            status, wanted = wait_for(client, meant, end, progress.show)
        if wanted.outcome == "failed":
            raise CommandError(f"release {wanted.release} failed: {wanted.reason}")
        text = f"release {wanted.release} from {wanted.source} is"
        if _held(status, wanted.release):
            promote = f"interlock promote {wanted.release}"
            console().print(
                Text(f"{text} up and held, for its cutover is manual; to make it live: {promote}")
            )
            raise typer.Exit(HELD)
        console().print(Text(f"{text} live"))


def wait_for(
    client: AdminClient,
    meant: Callable[[WantedEntry], bool],
    end: float,
    report: Callable[[str, str], None],
) -> tuple[Status, WantedEntry]:
    """Return the status in which the wanted set is settled, and what was wanted.

    It is settled when it is live, failed, or held until an operator promotes it.

    Raises CommandError after ``end``.

    After a restart of the cluster a release is live by the journal while its engines come up again: then it
    is settled once the gateway that answers is ready. ``report`` is called with what is waited for, and for
    how long.
    """
    while True:
        times = ""
        try:
            status = client.status()
            wanted = status.wanted
            if wanted is None:
                seen = "no model set is wanted yet"
            elif not meant(wanted):
                seen = f"the manager has not heard of it yet: release {wanted.release} is wanted"
            elif _held(status, wanted.release):
                return status, wanted
            elif wanted.outcome == "in progress":
                seen, times = _progress_of(status, wanted.release)
            elif wanted.outcome != "live" or client.ready():
                return status, wanted
            else:
                seen = f"release {wanted.release} is live, and the gateway is not ready yet"
        except Unavailable as error:
            seen = str(error)
        if time.monotonic() > end:
            raise CommandError(f"not live in time: {seen}")
        report(seen, times)
        time.sleep(_POLL_S)


def _held(status: Status, number: int) -> bool:
    """Say whether a release has come up and waits for an operator's promote."""
    release = status.release(number)
    return release is not None and release.held


def _progress_of(status: Status, number: int) -> tuple[str, str]:
    """Return a release's state and what it waits for, and for how long it has been in that state."""
    release = status.release(number)
    if release is None:
        return f"release {number} is in progress", ""
    parts = [f"release {number} is {release.state}", release.waits_for]
    parts += [
        f"{engine.digest[:12]}: {engine.progress}"
        for engine in status.engines
        if number in engine.releases and engine.progress and engine.state == "loading"
    ]
    since, expected = release.since, release.expected_in_state_s
    times = "" if since is None else elapsed_text(max(0.0, time.time() - since), expected)
    return "; ".join(part for part in parts if part), times


class ProgressLine:
    """Shows on stderr what is waited for: in place on a terminal, elsewhere as a line whenever it changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console(stderr=True)
        self._clock = clock
        self._printed = ""
        self._printed_at = -_REPEAT_S
        self._line = Line("", console=self._console) if self._console.is_terminal else None
        self._shown: AbstractContextManager[Any] = self._line or nullcontext()

    def __enter__(self) -> Self:
        """Begin."""
        self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the line."""
        self._shown.__exit__(*error)  # type: ignore[arg-type]  # the three of an exception, or None

    def show(self, seen: str, times: str) -> None:
        """Show what is waited for; a change of ``times`` alone prints no new line."""
        text = f"{seen} ({times})" if times else seen
        if self._line is not None:
            self._line.update(text)
        elif seen != self._printed or self._clock() - self._printed_at >= _REPEAT_S:
            self._printed, self._printed_at = seen, self._clock()
            self._console.print(text, markup=False, highlight=False)
