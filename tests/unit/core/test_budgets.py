"""Caps and their counters: what fits begins, what does not is refused, and nothing is overspent."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.clock import SystemClock
from runtime.core.budgets.budget import (
    Amount,
    Cap,
    CapKind,
    Counter,
    Per,
    Refusal,
    Unit,
    Window,
    claims,
    window_of,
)
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import Usage
from runtime.store.journal import Journal
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.spending.reservations import ReservationRequest
from runtime.store.sql.database import writing
from tests.unit.counters import counters_of
from tests.unit.fresh_store import fresh_store

NOW = 1_764_000_000.0
MINUTE, HOUR = 60, 3600


@pytest.fixture
def budgets(engine):
    return Budgets(engine, SystemClock())


def cap(limit, unit=Unit.TOKENS, window=Window.TOTAL, per=Per.TENANT, **changes):
    return Cap(
        **{
            "id": 0,
            "tenant": "acme",
            "key": "",
            "per": per,
            "unit": unit,
            "window": window,
            "limit": limit,
            **changes,
        }
    )


def tag(call, **changes):
    return HopTag(
        f"{call}-0",
        **{"request": call, "tenant": "acme", "key": "k1", "session": "s1", "admitted": NOW, **changes},
    )


def wish(budgets, call, worst, at=NOW, **changes):
    wanted = claims(budgets.caps(), tag(call, **changes), Amount(worst), at)
    return ReservationRequest(call, wanted, at, at + 60)


def fits(answers):
    return not any(isinstance(answer, Refusal) for answer in answers)


def spend(engine, budgets, call, tokens, **changes):
    row = LedgerRow(tag(call, **changes), Usage(tokens), Outcome.OK, 0.0, 0.0, 0.0)
    Ledger(engine, budgets).write([row], [call])


# A request begins while its worst case fits, and not a token beyond; what it has not spent is free again.
def test_what_fits_begins(engine, budgets):
    budgets.set(cap(100))
    one, other, third = (wish(budgets, call, 50) for call in "abc")
    assert fits(budgets.reserve([one, other, third])[:2])
    refused = budgets.reserve([third])[0]
    assert (refused.cap.limit, refused.counter, refused.wanted) == (100, Counter(0, 100), 50)
    spend(engine, budgets, "a", 20)
    assert fits(budgets.reserve([wish(budgets, "d", 30)]))
    assert budgets.reserve([wish(budgets, "e", 1)])[0].counter == Counter(20, 80)


# Of caps at tenant, key and session, all must hold; a refused request has reserved none of them.
def test_all_caps_or_none(budgets):
    budgets.set(cap(1000))
    budgets.set(cap(100, per=Per.KEY))
    budgets.set(cap(30, per=Per.SESSION))
    assert fits(budgets.reserve([wish(budgets, "a", 30)]))
    assert budgets.reserve([wish(budgets, "b", 30)])[0].cap.per is Per.SESSION
    assert fits(budgets.reserve([wish(budgets, call, 30, session=f"of {call}") for call in "cd"]))
    assert budgets.reserve([wish(budgets, "e", 30, session="s4")])[0].cap.per is Per.KEY
    assert counters_of(budgets, budgets.caps()[0].id) == [Counter(0, 90)]


# Requests of a minute are counted when they begin; the next minute has its own, and is told when it comes.
def test_requests_of_a_minute(budgets):
    budgets.set(cap(2, unit=Unit.REQUESTS, window=Window.MINUTE))
    assert fits(budgets.reserve([wish(budgets, str(n), 0) for n in range(3)])[:2])
    refused = budgets.reserve([wish(budgets, "x", 0)])[0]
    assert refused.ends == NOW - NOW % MINUTE + MINUTE
    assert fits(budgets.reserve([wish(budgets, "y", 0, at=refused.ends)]))


# A request is under way until it is released; after that another one may be.
def test_concurrent_requests(engine, budgets):
    budgets.set(cap(1, unit=Unit.CONCURRENT))
    assert fits(budgets.reserve([wish(budgets, "a", 0)]))
    assert not fits(budgets.reserve([wish(budgets, "b", 0)]))
    spend(engine, budgets, "a", 7)
    assert fits(budgets.reserve([wish(budgets, "b", 0)]))


# A soft cap refuses nobody.
def test_a_soft_cap_refuses_nobody(budgets):
    budgets.set(cap(1, hard=False))
    assert fits(budgets.reserve([wish(budgets, "a", 50)]))


# What is reserved for a gateway that died is free again after its time; what it spent stays spent.
def test_reservations_of_a_dead_gateway_expire(engine, budgets):
    budgets.set(cap(100))
    assert fits(budgets.reserve([wish(budgets, "a", 100)]))
    assert budgets.sweep(NOW + 59) == 0
    assert budgets.sweep(NOW + 61) == 1
    spend(engine, budgets, "a", 40)
    spend(engine, budgets, "a", 40)
    assert fits(budgets.reserve([wish(budgets, "b", 60)]))
    assert budgets.reserve([wish(budgets, "c", 1)])[0].counter == Counter(40, 60)


# A cap that is changed goes on counting; one that is removed refuses nobody.
def test_caps_can_be_changed(budgets):
    budgets.set(cap(10))
    assert fits(budgets.reserve([wish(budgets, "a", 10)]))
    budgets.set(cap(20))
    assert [known.limit for known in budgets.caps()] == [20]
    assert not fits(budgets.reserve([wish(budgets, "b", 11)]))
    assert budgets.remove(budgets.caps()[0].id)
    assert fits(budgets.reserve([wish(budgets, "b", 11)]))


# A change and its audit entry are written together or not at all.
def test_a_change_is_audited_or_not_made(engine, budgets, monkeypatch):
    budgets.set(cap(10), "ann")
    monkeypatch.setattr("runtime.core.views.audit.AuditEntry.as_json", lambda _: {"at": 0.0})
    with pytest.raises(sa.exc.IntegrityError):
        budgets.set(cap(20), "ann")
    with pytest.raises(sa.exc.IntegrityError):
        budgets.remove(budgets.caps()[0].id, "ann")
    budgets.forget()
    assert [known.limit for known in budgets.caps()] == [10]
    assert [entry["detail"] for entry in Journal(engine).audit(9)] == [str(cap(10))]


# At any concurrency the sum of what begins is the limit exactly: nothing over, nothing refused too soon.
@pytest.mark.store
@pytest.mark.parametrize("threads", [1, 8, 64])
def test_never_overspent(engine, threads):
    Budgets(engine, SystemClock()).set(cap(1000))
    begun = []

    def gateway(number):
        mine = Budgets(engine, SystemClock())
        for attempt in range(128 // threads):
            wanted = wish(mine, f"{number}-{attempt}", 10)
            if fits(mine.reserve([wanted])):
                begun.append(wanted.call)

    running = [threading.Thread(target=gateway, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(begun) == 100


# Gateways that begin requests and gateways that settle them never wait for each other in a circle.
@pytest.mark.store
def test_no_deadlock(engine):
    Budgets(engine, SystemClock()).set(cap(10**9, unit=Unit.CONCURRENT))
    Budgets(engine, SystemClock()).set(cap(10**9))
    Budgets(engine, SystemClock()).set(cap(10**9, per=Per.SESSION))

    def gateway(number):
        mine = Budgets(engine, SystemClock())
        for attempt in range(40):
            call, session = f"{number}-{attempt}", "aBcD"[attempt % 4]
            mine.reserve([wish(mine, call, 10, session=session)])
            spend(engine, mine, call, 5, session=session)

    with ThreadPoolExecutor(max_workers=6) as threads:
        list(threads.map(gateway, range(6)))
    assert [cap.counter.reserved for cap in Budgets(engine, SystemClock()).standing()] == [0, 0, 0]


# A cap that is gone leaves its id to no other: what is told of it later would count for that one.
def test_ids_are_not_used_again(budgets):
    budgets.set(cap(10))
    (gone,) = budgets.caps()
    budgets.remove(gone.id)
    budgets.set(cap(20))
    assert budgets.caps()[0].id > gone.id


# What no database can count is refused, also by a cap that is soft; and counters of past windows go.
def test_what_cannot_be_counted(budgets):
    budgets.set(cap(10, hard=False, window=Window.MINUTE))
    assert fits(budgets.reserve([wish(budgets, "a", 2**62)]))
    assert not fits(budgets.reserve([wish(budgets, "b", 2**62)]))
    budgets.sweep(NOW + 3600)
    assert counters_of(budgets, budgets.caps()[0].id) == []


# Windows hold their moment, and follow each other without a gap.
@given(st.sampled_from([w for w in Window if w is not Window.TOTAL]), st.floats(0, 4e9))
@settings(max_examples=200)
def test_windows(window, at):
    begins, ends = window_of(window, at)
    assert begins <= at < ends
    assert window_of(window, ends)[0] == ends


class Heard:
    """Notes warnings, whoever gives them."""

    def __init__(self):
        self.shares = []

    def warned(self, cap, share):
        self.shares.append((cap.id, share))


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def gateways(engine, heard):
    """Three processes' budgets on one store."""
    return [Budgets(engine, SystemClock(), [heard]) for _ in range(3)]


# Whoever's transaction passes a share warns of it, and nobody else: of several processes, once in a window.
def test_warned_once_of_each_share(engine, gateways, heard):
    gateways[0].set(cap(100, window=Window.HOUR))
    (known,) = gateways[0].caps()
    steps = [(79, []), (1, [80]), (1, [80]), (13, [80]), (1, [80, 95]), (5, [80, 95])]
    for call, (tokens, told) in enumerate(steps):
        spend(engine, gateways[call % 3], str(call), tokens)
        assert heard.shares == [(known.id, share) for share in told]
    assert heard.shares.count((known.id, 80)) == 1
    spend(engine, gateways[0], "next", 99, admitted=NOW + HOUR)
    assert heard.shares[2:] == [(known.id, 80), (known.id, 95)]
    assert [counter.warned for counter in counters_of(gateways[0], known.id)] == [2, 2]


# Of gateways that spend at once, none warns of what another has warned of.
def test_warned_once_at_any_concurrency(engine, gateways, heard):
    gateways[0].set(cap(30))

    def run(number):
        for call in range(12):
            spend(engine, gateways[number], f"{number}-{call}", 1)

    running = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert [share for _, share in heard.shares] == [80, 95]


# A soft cap, which refuses nobody, warns when it is reached, too; a hard one has no need to.
def test_a_soft_cap_warns_when_it_is_reached(engine, budgets, gateways, heard):
    budgets.set(cap(100, hard=False))
    budgets.set(cap(100, per=Per.KEY))
    soft, hard = (known.id for known in budgets.caps())
    spend(engine, gateways[0], "a", 150)
    assert sorted(heard.shares) == [(soft, 80), (soft, 95), (soft, 100), (hard, 80), (hard, 95)]
    spend(engine, gateways[1], "b", 150)
    assert len(heard.shares) == 5
    assert [cap.counter.warned for cap in budgets.standing()] == [3, 2]


# Requests are counted when they begin: so are the shares that they pass. What is reserved is not spent.
def test_requests_pass_shares(engine, gateways, heard):
    gateways[0].set(cap(5, unit=Unit.REQUESTS, window=Window.MINUTE))
    gateways[0].set(cap(1000))
    for number in range(4):
        wanted = wish(gateways[0], str(number), 250)
        assert heard.shares == []
        gateways[number % 3].reserve([wanted])
    requests, _ = (known.id for known in gateways[0].caps())
    assert heard.shares == [(requests, 80)]
    spend(engine, gateways[0], "0", 1)
    gateways[0].reserve([wish(gateways[0], "4", 1)])
    assert heard.shares == [(requests, 80), (requests, 95)]


# Of a cap that bounds each request nobody hears, unless it is soft and does nothing else.
def test_requests_by_themselves(engine, gateways, heard):
    gateways[0].set(cap(100, per=Per.REQUEST))
    spend(engine, gateways[0], "a", 99)
    assert heard.shares == []
    gateways[0].set(cap(100, per=Per.REQUEST, hard=False))
    spend(engine, gateways[0], "b", 99)
    assert heard.shares == []
    spend(engine, gateways[0], "c", 101)
    assert [share for _, share in heard.shares] == [100]


# A limit that is changed is another limit: what was spent is told of anew, by its share of that one.
def test_a_changed_limit_warns_anew(engine, gateways, heard):
    gateways[0].set(cap(100))
    spend(engine, gateways[0], "a", 90)
    gateways[0].set(cap(100, hard=False))
    spend(engine, gateways[0], "b", 1)
    assert [share for _, share in heard.shares] == [80]
    gateways[0].set(cap(200, hard=False))
    spend(engine, gateways[0], "c", 1)
    assert [share for _, share in heard.shares] == [80]
    spend(engine, gateways[0], "d", 70)
    assert [share for _, share in heard.shares] == [80, 80]


# What is rolled back is not told of: the row of a hop that was not written has spent nothing.
def test_what_is_not_committed_is_not_told(engine, gateways, heard):
    gateways[0].set(cap(100))
    with pytest.raises(ZeroDivisionError):
        charge_and_fail(engine, gateways[0])
    assert heard.shares == []
    spend(engine, gateways[0], "a", 90)
    assert len(heard.shares) == 1


def charge_and_fail(engine, budgets):
    with writing(engine) as connection:
        budgets.settle(connection, [(tag("a"), Amount(90))], [])
        raise ZeroDivisionError


# A warning names whose cap it is, which, and how it stands; a session is told apart from the text around it.
def test_what_a_warning_says(engine, gateways, caplog):
    gateways[0].set(cap(100, key="k1", window=Window.DAY, kind=CapKind.LIMIT, hard=False))
    gateways[0].set(cap(100, per=Per.KEY))
    gateways[0].set(cap(100, per=Per.SESSION))
    spend(engine, gateways[0], "a", 80, session="s: 1")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    first, second, third = (known.id for known in gateways[0].caps())
    day = "(day since 2025-11-24T00:00:00+00:00)"
    assert sorted(told) == [
        f"tenant acme, key k1: 80 of 100 tokens are spent, 80 % of the hard budget {second} (total)",
        f"tenant acme, key k1: 80 of 100 tokens are spent, 80 % of the soft limit {first} {day}",
        f"tenant acme, session 's: 1': 80 of 100 tokens are spent, 80 % of the hard budget {third} (total)",
    ]


# What a reservation costs does not grow with the counters that there are: no statement of it reads them all.
def test_counters_are_found_by_their_index():
    store = fresh_store()
    budgets, asked = Budgets(store, SystemClock()), []

    def note(statement):
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and "counters" in statement:
            asked.append(statement)

    for per in (Per.TENANT, Per.SESSION):
        budgets.set(cap(10**9, per=per))
    wish = ReservationRequest("r", claims(budgets.caps(), tag("r"), Amount(500), NOW), NOW, NOW + MINUTE)
    with store.connect() as connection:
        driver = connection.connection.driver_connection
        driver.set_trace_callback(note)
        assert not isinstance(budgets.reserve([wish])[0], Refusal)
        driver.set_trace_callback(None)
        assert len(asked) > 1
        for statement in asked:
            plan = connection.exec_driver_sql(f"explain query plan {statement}").all()
            assert not [step for *_, step in plan if step.startswith("SCAN counters")], statement
    store.dispose()
