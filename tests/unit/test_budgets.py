"""Caps and their counters: what fits begins, what does not is refused, and nothing is overspent."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.clock import SystemClock
from runtime.core.budget import (
    Cap,
    Counter,
    CounterId,
    Per,
    Refusal,
    Unit,
    Window,
    claims,
    crossed,
    window_of,
)
from runtime.core.ledger import HopTag, LedgerRow, Outcome
from runtime.core.usage import Usage
from runtime.store.budgets import Budgets, Wish
from runtime.store.ledger import Ledger

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
    return Wish(call, claims(budgets.caps(), tag(call, **changes), worst, at), at, at + 60)


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
    tenant = CounterId(budgets.caps()[0].id, "acme", 0)
    assert budgets.counters([tenant]) == {tenant: Counter(0, 90)}


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


# At any concurrency the sum of what begins is the limit exactly: nothing over, nothing refused too soon.
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


# Windows hold their moment, and follow each other without a gap.
@given(st.sampled_from([w for w in Window if w is not Window.TOTAL]), st.floats(0, 4e9))
@settings(max_examples=200)
def test_windows(window, at):
    begins, ends = window_of(window, at)
    assert begins <= at < ends
    assert window_of(window, ends)[0] == ends


# A warning is given once on the way past each share, and once for the highest when several are passed.
def test_warnings():
    assert crossed(100, 79, 80) == 0.8
    assert crossed(100, 80, 94) is None
    assert crossed(100, 50, 99) == 0.95
