"""What tokens cost: by the prices of the release that spent them, exactly, and never over a budget of it."""

import asyncio
import itertools

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.clock import SystemClock
from runtime.core.budgets.budget import Counter, Unit
from runtime.core.metering.cost import FREE, Price, cost_of, money_text, parse_money, parse_price, worst_cost
from runtime.core.metering.ledger import EndedHop, HopTag, LedgerRow, Outcome, row_of
from runtime.core.metering.usage import Usage
from runtime.core.model_set.model_set import parse
from runtime.errors import ModelSetError, QuotaExhausted
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import reading
from runtime.store.tables import LEDGER
from runtime.testing.model_sets import content_of
from tests.unit.api.test_api import serving
from tests.unit.counters import counters_of
from tests.unit.traffic.test_spending import ACME, QUICK, ask, cap, limited
from tests.unit.world import document

PRICED = {"prompt": 0.15, "cached": 0.075, "completion": 0.60}
PRICE = Price(150_000, 75_000, 600_000)
NANO = 10**9


def priced(version=1, **price):
    """A set whose writer has a price."""
    return document(version, writer={**QUICK, "price": {**PRICED, **price}})


# A price is per million tokens, as the field writes it; a hop's cost is exact, and rounded up once.
def test_what_a_hop_costs():
    assert cost_of(PRICE, Usage(prompt=1_000_000)) == parse_money("0.15")
    assert cost_of(PRICE, Usage(prompt=1_000_000, completion=1_000_000)) == parse_money("0.75")
    assert cost_of(PRICE, Usage(prompt=1000, cached=400)) == 600 * 150 + 400 * 75
    assert cost_of(Price(1, 0, 0), Usage(prompt=1)) == cost_of(Price(1, 0, 0), Usage(prompt=1000)) == 1
    assert cost_of(FREE, Usage(10, 10, 10, 10)) == 0


_PICO = st.integers(0, 10**12)
_TOKENS = st.integers(0, 10**6)


# The worst case is at least what a hop comes to, whatever of its prompt was cached, also at odd prices.
@given(st.builds(Price, _PICO, _PICO, _PICO), _TOKENS, _TOKENS, _TOKENS)
def test_the_worst_case_holds(price, prompt, cached, completion):
    usage = Usage(prompt, completion, min(cached, prompt))
    assert cost_of(price, usage) <= worst_cost(price, prompt, completion)


# Money goes to text and back without a loss; a typed 0.1 is a tenth, and what is no amount is refused.
@given(st.integers(0, 2**63 - 1))
def test_money_round_trip(nano):
    assert parse_money(money_text(nano)) == nano


@pytest.mark.parametrize("value", [-1, "-1", "x", "", None, True, "nan", "inf", "1e99", "0.0000000001", []])
def test_no_money(value):
    assert parse_money(0.1) == NANO // 10
    with pytest.raises(ValueError, match=r".+"):
        parse_money(value)


# What is written in a set is the price; without one for cached tokens these cost as much as the others.
@pytest.mark.parametrize("prompt", [0.15, "0.15", "0.150000"])
def test_a_price_in_a_set(prompt):
    model_set = parse(priced(prompt=prompt), "set.yaml", str)
    assert model_set.prices == {"writer": PRICE}
    alone = document(1, writer={"price": {"prompt": prompt}})
    assert parse(alone, "set.yaml", str).prices == {"writer": Price(150_000, 150_000, 0)}


# What is no price is refused where it stands.
@pytest.mark.parametrize("value", [-0.1, "cheap", True, None, 0.0000001, 1e7, [1]])
def test_no_price(value):
    with pytest.raises(ModelSetError, match=r"engines.writer.price.prompt: .*per million tokens"):
        parse(priced(prompt=value), "set.yaml", str)
    with pytest.raises(ModelSetError, match=r"engines.writer.price.prompt: "):
        parse(document(1, writer={"price": {"completion": 1}}), "set.yaml", str)
    assert parse_price(0) == 0


# A price is of the set, and changes no engine: nothing is loaded for it. Equal prices are equal sets.
def test_digests():
    free, first, second = (
        content_of(each) for each in (document(1, writer=QUICK), priced(), priced(prompt=1))
    )
    assert free.engines == first.engines == second.engines
    assert len({free.digest, first.digest, second.digest}) == 3
    assert content_of(priced(prompt="0.150")).digest == first.digest
    assert type(first).model_validate_json(first.model_dump_json()) == first


@pytest.fixture
def budgets(engine):
    return Budgets(engine, SystemClock())


@pytest.fixture
def ledger(engine, budgets):
    return Ledger(engine, budgets)


def tag(hop, price=PRICE):
    return HopTag(hop, request="r", tenant="acme", key="k1", started=10.0, admitted=10.0).priced(price)


# Whatever its two witnesses tell, and in whatever order, a row costs what its tokens cost at its price, and
# a budget has been charged with just that: also if a token turns out to have been cached.
def test_two_witnesses_agree_on_the_cost(ledger, budgets):
    budgets.set(cap(NANO, Unit.COST))
    price = Price(150_001, 75_003, 600_007)
    for number, order in enumerate(itertools.permutations(range(3))):
        seen = LedgerRow(tag(f"h{number}", price), Usage(10, 3), Outcome.CANCELLED, 1.0, 20.0, 90.0)
        counted = row_of(EndedHop(1, tag(f"h{number}", price), Usage(10, 5, 2), 0.4))
        for position in order:
            ledger.write([(seen, counted, seen)[position]])
    with reading(ledger._engine) as connection:
        costs = connection.execute(sa.select(LEDGER.c.cost)).scalars().all()
    assert costs == [cost_of(price, Usage(10, 5, 2))] * 6
    assert ledger.usage("tenant")[0]["cost"] == money_text(sum(costs))
    assert counters_of(budgets, budgets.caps()[0].id) == [Counter(sum(costs), 0)]


# What a request may cost is reserved, what it has cost is spent: never over, at any concurrency, and no
# refusal while the worst case still fitted.
@pytest.mark.parametrize("together", [1, 64])
async def test_a_cost_budget_is_never_overspent(together):
    worst = worst_cost(PRICE, 4, 6)
    async with limited(cap(20 * worst + 1, Unit.COST), gateways=4, wanted=content_of(priced())) as world:
        results = []
        for begun in range(0, 128, together):
            numbers = range(begun, begun + together)
            results += await asyncio.gather(*(ask(world, n % 4, abandon=n % 3 == 0) for n in numbers))
        refused = [result for result in results if isinstance(result, QuotaExhausted)]
        assert len(refused) > 80
        assert all(fits_not(error, worst) for error in refused)
        ((known, counter, *_),) = world.budgets.standing()
        (group,) = [group for group in world.ledger.usage("tenant") if group["tenant"] == "acme"]
        assert parse_money(group["cost"]) == counter.spent <= known.limit
        assert counter.reserved == 0
        assert counter.spent > known.limit - worst


def fits_not(error, worst):
    """Say whether the refusal is right: what was spent and reserved then left less than the worst case."""
    words = str(error).replace(",", "").split()
    spent, reserved, limit = (parse_money(words[words.index(at) + by]) for at, by in MONEY)
    return spent + reserved + worst > limit


MONEY = (("spent", -1), ("reserved", -1), ("reserved", 2))


# A new price loads nothing; requests of the release that says it cost by it, and older ones by theirs. A
# warm-up costs, too.
async def test_a_new_price():
    async with limited(wanted=content_of(priced())) as world:
        await ask(world)
        dear = content_of(priced(prompt=150, cached=75, completion=600))
        world.want(dear)
        await world.until_live(dear)
        assert len(await world.cluster.engines()) == 2
        await ask(world)
        costs = {group["tenant"]: parse_money(group["cost"]) for group in world.ledger.usage("tenant")}
        assert costs["acme"] == 1001 * cost_of(PRICE, Usage(4, 6))
        await asyncio.sleep(10)
        costs = {group["purpose"]: parse_money(group["cost"]) for group in world.ledger.usage("purpose")}
        assert costs["warmup"] > 0


# Operators set, see and are refused money as text; of engines without a price they are told, and the cap
# is set all the same.
async def test_cost_over_the_admin_api():
    async with serving() as (_, client):
        path, body = "/admin/v1/budgets", {"tenant": "acme", "unit": "cost", "limit": 25.5}
        answer = (await client.put(path, json=body)).json()
        (told,) = answer["budgets"]
        assert (told["limit"], told["spent"], told["reserved"]) == ("25.5", "0", "0")
        assert "router, writer" in answer["warnings"][0]
        for limit in (-1, "much", None, True, 2**63, "0.0000000001"):
            refused = await client.put(path, json=body | {"limit": limit})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")
        assert (await client.put(path, json=body | {"unit": "tokens"})).status_code == 400
        assert (await client.put(path, json=body | {"unit": "tokens", "limit": 2**63})).status_code == 400
    async with serving(writer={"price": PRICED}, router={"price": {"prompt": 0.02}}) as (_, client):
        assert (await client.put(path, json=body)).json()["warnings"] == []


# The command takes money as --cost or as a limit of the unit, passes it on as typed, and shows warnings.
def test_the_command(monkeypatch):
    asked = []

    def put(_client, budget):
        asked.append((budget["unit"], budget["limit"]))
        return {"budgets": [], "warnings": ["mind this"]}

    monkeypatch.setattr(AdminClient, "set_budget", put)
    for options in (["--cost", "25.50"], ["--limit", "25.50", "--unit", "cost"], ["--limit", "9"]):
        done = CliRunner().invoke(app, ["budgets", "set", "--tenant", "acme", *options])
        assert (done.exit_code, done.stderr) == (0, "warning: mind this\n")
    assert asked == [("cost", "25.50"), ("cost", "25.50"), ("tokens", 9)]
    for options in ([], ["--cost", "1", "--limit", "1"]):
        assert CliRunner().invoke(app, ["budgets", "set", "--tenant", "acme", *options]).exit_code == 1


# Who is refused for money is told of money.
async def test_a_refusal_names_money():
    async with limited(cap(1000, Unit.COST), wanted=content_of(priced())) as world:
        refused = await ask(world, caller=ACME)
        assert "0 spent and 0 reserved of 0.000001" in str(refused)
