"""What the command line prints loses nothing: no head, time or limit is cut anywhere."""

import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from runtime.cli import main, status_view, tables
from runtime.cli.budgets import _COLUMNS
from runtime.cli.client import AdminClient
from runtime.cli.tables import Grid, counted
from runtime.core.declaration.units import span_text
from runtime.core.views.forms import GatewayEntry, PrefixCache, ReleaseEntry, Status, WantedEntry
from runtime.errors import Unavailable

AUDIT = ("when", "who", "what", "from", "to", "outcome", "detail")
WHEN = "2026-11-28T12:34:56+00:00"
DETAIL = "release 12 does not fit beside the live one: cpu needs 12.0 GiB, has 3.1 GiB free of 24.0 GiB"
TABLES = {
    "budgets": (_COLUMNS, (), [[f"{name}-of-acme" for name in _COLUMNS]] * 2),
    "keys": (
        ("id", "begins with", "tenant", "name", "created", "revoked"),
        (),
        [["key-0f3a9c51d2e7", "il-1234", "acme", "laptop", WHEN, WHEN]],
    ),
    "audit": (AUDIT, ("detail",), [[WHEN, "operator@head-node", "promote", "11", "12", "refused", DETAIL]]),
    "usage": (
        ("tenant", "requests", "hops", "prompt tokens", "cached tokens", "completion tokens", "cost"),
        (),
        [["acme", *["123456789"] * 5, "12.000000001"]],
    ),
}


def printed(heads, sentences, rows, **options):
    grid = Grid(heads, sentences)
    for row in rows:
        grid.row(*row)
    console = Console(**options)
    with console.capture() as capture:
        console.print(grid)
    return capture.get()


# At 80 columns every head and every cell is there, each in one piece but for sentences.
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_cut(name, width):
    heads, sentences, rows = TABLES[name]
    text = printed(heads, sentences, rows, width=width, force_terminal=True, color_system=None)
    whole = "".join(text.split())
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            assert head in text
            assert cell in text or head in sentences
            if head in sentences:
                assert all(word in whole for word in cell.split())
    assert "…" not in text


# In a pipe a row is a line, however long it is.
@pytest.mark.parametrize("name", TABLES)
def test_in_a_pipe(name, capsys):
    heads, sentences, rows = TABLES[name]
    grid = Grid(heads, sentences)
    for row in rows:
        grid.row(*row)
    tables.console().print(grid)
    lines = capsys.readouterr().out.splitlines()
    assert all(head in lines[1] for head in heads)
    assert all(any(all(cell in line for cell in row) for line in lines) for row in rows)


# One is one.
def test_counted():
    assert [counted(n, "gateway") for n in (0, 1, 2)] == ["0 gateways", "1 gateway", "2 gateways"]


# A span of time is told in its two largest units.
@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (60, "1 min"), (3_900, "1 h 5 min"), (90_000, "1 d 1 h")],
)
def test_span(seconds, text):
    assert span_text(seconds) == text


def status_with(gateways, *, live=None, wanted=None, releases=()):
    entries = [GatewayEntry(id=f"gateway-{n}") for n in range(gateways)]
    return Status(
        revision=1, edition=1, live=live, wanted=wanted, releases=releases, engines=[], gateways=entries
    )


# A live release has no expected end: the status tells for how long it has been live, and its hit rate below.
def test_status_of_a_live_release():
    wanted = WantedEntry(release=2, source="v2.yaml", outcome="live")
    live = ReleaseEntry(
        number=2, source="v2.yaml", name="support", model_set="a" * 64, state="live", outcome="live",
        reason=None, since=time.time() - 7_500, prefix_cache=PrefixCache(requests=1, hit_rate=0.8),
    )  # fmt: skip
    status = status_with(1, live=2, wanted=wanted, releases=[live])
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(status_view.render(status))
    text = capture.get()
    assert "2 h 5 min" in text
    assert "elapsed" not in text
    assert "1 gateway; metered" in text
    assert "release 2: 80% of the prompts of its 1 first request came from the prefix cache" in text


# A status that is followed into a pipe or a file is printed there each time it is asked for, as plain text.
def test_watch_in_a_pipe(monkeypatch):
    asked = []

    def told(_client):
        if len(asked) == 3:
            raise Unavailable("gone")
        asked.append(len(asked))
        return status_with(asked[-1])

    monkeypatch.setattr(AdminClient, "status", told)
    monkeypatch.setattr(main, "_POLL_S", 0.0)
    done = CliRunner().invoke(main.app, ["status", "--watch"])
    assert done.exit_code == 1
    footers = [line for line in done.stdout.splitlines() if "metered" in line]
    assert [line[:10] for line in footers] == ["0 gateways", "1 gateway;", "2 gateways"]
    assert "\x1b" not in done.stdout
