"""When budgets run out: by what was spent lately, for whoever runs out first."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.core.budgets.budget import Per, Unit, Window, window_of
from runtime.core.budgets.forecast import TRAIL_SECONDS, Recent, forecast, rate
from runtime.core.metering.cost import Price
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import Usage
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from tests.unit.api.test_api import post, serving
from tests.unit.core.test_budgets import cap

NOON = 1_763_985_600.0
"""2025-11-24, 12:00 UTC."""
HOUR = 3600.0
DAY = cap(1000, window=Window.DAY)


def after(hours):
    """So many hours after noon."""
    return pytest.approx(NOON + hours * HOUR, abs=0.01)


class StoppedClock:
    """It is noon."""

    def now(self):
        return 0.0

    def wall(self):
        return NOON


# At a steady rate a budget runs out when what is left is spent; not at all if its window ends before.
@pytest.mark.parametrize(
    ("spent", "per_hour", "hours"),
    [(900, 100, 1), (0, 100, 10), (0, 83, None), (500, 0, None), (1000, 0, 0), (1200, 50, 0)],
)
def test_runs_out(spent, per_hour, hours):
    told = forecast(DAY, "acme", spent, per_hour / HOUR, NOON)
    assert told.ends == NOON + 12 * HOUR
    assert told.runs_out == (None if hours is None else after(hours))


# A budget in total has no window that ends before it is spent.
def test_in_total():
    assert forecast(cap(10**9), "acme", 0, 1.0, NOON).runs_out == NOON + 10**9


# The rate is measured over the trail by who has spent for longer, since its beginning by who has not, and
# a moment's burst is not taken for a rate.
@pytest.mark.parametrize(
    ("ago", "span"), [(8 * HOUR, 6 * HOUR), (2 * HOUR, 2 * HOUR), (1.0, 60.0), (0.0, 60.0)]
)
def test_the_present_rate(ago, span):
    assert rate(DAY, Recent(600, NOON - ago), NOON) == pytest.approx(600 / span)


# Who goes on at the rate that a forecast goes by has spent just the limit when it runs out.
@given(st.sampled_from(list(Window)), st.integers(0, 10**6), st.floats(1e-6, 1e6), st.integers(1, 10**6))
def test_what_is_left_lasts_until_then(window, spent, per_second, limit):
    told = forecast(cap(limit, window=window), "acme", spent, per_second, NOON)
    if told.runs_out is None:
        assert spent + per_second * (told.ends - NOON) <= limit * (1 + 1e-9)
    elif spent < limit:
        assert told.runs_out - NOON == pytest.approx((limit - spent) / per_second, abs=1e-6)
        assert told.runs_out < told.ends


@pytest.fixture
def budgets(engine, monkeypatch):
    monkeypatch.setattr(
        "runtime.store.spending.known_caps.clock_of", lambda _: NOON
    )  # PostgreSQL has one of its own
    return Budgets(engine, StoppedClock())


def spend(engine, budgets, hop, ago, tokens=100, **changes):
    """Rows of one request each, begun ``ago`` seconds before noon."""
    known = {"request": hop, "tenant": "acme", "key": "k1", "session": "s1", "started": NOON - ago}
    tag = HopTag(hop, **{**known, "admitted": NOON - ago, **changes}).priced(Price(1000, 1000, 1000))
    Ledger(engine, budgets).write([LedgerRow(tag, Usage(tokens), Outcome.OK, 0.0, 0.0, 0.0)])


# The ledger's rows give the rate of each unit: within the trail, of the cap's tenant and key alone.
@pytest.mark.parametrize(
    ("unit", "per_hour", "spent", "hours"),
    [(Unit.TOKENS, 100, 600, 4), (Unit.COST, 100, 600, 4), (Unit.REQUESTS, 4 / 6, 0, None)],
)
def test_the_rate_of_the_ledger(engine, budgets, unit, per_hour, spent, hours):
    budgets.set(cap(1000, unit, Window.DAY, key="k1"))
    for number, ago in enumerate((1, 2, 4, 5)):
        spend(engine, budgets, f"in-{number}", ago * HOUR)
    spend(engine, budgets, "second hop", HOUR, 200, request="in-0")
    spend(engine, budgets, "earlier", 11 * HOUR, tokens=0)
    spend(engine, budgets, "long ago", 20 * HOUR)
    spend(engine, budgets, "other", HOUR, tenant="other")
    spend(engine, budgets, "other key", HOUR, key="k2")
    (told,) = budgets.forecast()
    assert told.per_second * HOUR == pytest.approx(per_hour)
    assert told.spent == spent
    assert told.runs_out == (None if hours is None else after(hours))


# Of several sessions, that is told which runs out first; one that has not spent in this window, too.
def test_who_runs_out_first(engine, budgets):
    budgets.set(cap(1000, window=Window.HOUR, per=Per.SESSION))
    spend(engine, budgets, "much, long ago", 40 * HOUR, 900, session="idle")
    spend(engine, budgets, "a", 600, 300, session="slow")
    spend(engine, budgets, "b", 300, 800, session="fast")
    (told,) = budgets.forecast()
    assert (told.subject, told.spent) == ("fast", 0)
    assert window_of(Window.HOUR, NOON)[0] == NOON
    assert told.runs_out == after(1000 / (800 / 300) / HOUR)


# A cap of which nothing adds up, or of which nobody has spent, does not run out.
def test_what_does_not_run_out(engine, budgets):
    budgets.set(cap(2, Unit.CONCURRENT))
    budgets.set(cap(10, per=Per.REQUEST))
    budgets.set(cap(10, tenant="nobody"))
    spend(engine, budgets, "a", 60.0)
    assert [(told.runs_out, told.per_second) for told in budgets.forecast()] == [(None, 0.0)] * 3


# Every window has a trail, which is not longer than itself.
def test_trails():
    for window in Window:
        begins, ends = window_of(window, NOON)
        assert 60 <= TRAIL_SECONDS[window] <= ends - begins


# Operators ask for it over the admin API, and nobody else.
async def test_over_the_admin_api():
    async with serving() as (_, client):
        await client.put("/admin/v1/budgets", json={"tenant": "acme", "limit": 7})
        await client.put("/admin/v1/budgets", json={"tenant": "acme", "limit": "2.5", "unit": "cost"})
        await post(client)
        tokens, cost = (await client.get("/admin/v1/usage/forecast")).json()["forecast"]
        assert (tokens["limit"], tokens["runs_out"], tokens["ends"]) == (7, None, None)
        assert (cost["limit"], cost["spent"], cost["per_second"]) == ("2.5", "0", 0.0)
    async with serving("10.1.2.3") as (_, client):
        assert (await client.get("/admin/v1/usage/forecast")).status_code == 403


ROW = {"id": 1, "tenant": "acme", "key": "", "subject": "acme", "unit": "tokens", "window": "day"}
ROW |= {"limit": 1000, "spent": 900, "per_second": 0.5, "ends": None}


# The command says in words what happens when; for programs it passes on what it was told.
@pytest.mark.parametrize(
    ("runs_out", "told"), [(None, "not within its window"), (0.0, "it has"), (4e9, "2096-10-02")]
)
def test_the_command(monkeypatch, runs_out, told):
    rows = [{**ROW, "runs_out": runs_out}]
    monkeypatch.setattr(AdminClient, "forecast", lambda _: rows)
    environment = {"COLUMNS": "250", "TERM": "dumb", "TZ": "UTC"}
    done = CliRunner().invoke(app, ["usage", "--forecast"], env=environment)
    assert done.exit_code == 0
    assert told in done.stdout
    assert "1800" in done.stdout
    done = CliRunner().invoke(app, ["usage", "--forecast", "--format", "json"])
    assert json.loads(done.stdout) == rows
    assert CliRunner().invoke(app, ["usage", "--forecast", "--since", "1h"]).exit_code == 1
