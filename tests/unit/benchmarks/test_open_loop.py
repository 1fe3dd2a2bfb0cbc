"""When the open-loop load generator sends what."""

import asyncio
from itertools import islice, pairwise

import pytest

from benchmarks.parts.open_loop import LoadGenerator, Plan

CYCLE_S = 20.0


def sent(number, **plan):
    """The first requests of a plan: when each is due, and what it is."""
    questions = [f"question {n}" for n in range(100)]
    load = LoadGenerator(Plan("http://nowhere", "m", questions, **{"rate": 2.0, **plan}))
    return [(due, load._drawn()) for due in islice(load._arrivals(), number)]


# With a cycle, the same requests come at the same moments of each, and at none that is regular.
def test_cycles_are_alike():
    made = sent(120, cycle_s=CYCLE_S, abandon_share=0.3)
    first, second, third = made[:40], made[40:80], made[80:]
    for number, later in ((1, second), (2, third)):
        assert [drawn for _, drawn in later] == [drawn for _, drawn in first]
        assert [due - number * CYCLE_S for due, _ in later] == pytest.approx([due for due, _ in first])
    gaps = [late - early for (early, _), (late, _) in pairwise(first)]
    assert max(gaps) > 10 * min(gaps)


# Any two windows of a cycle's length have as many requests, wherever they begin.
@pytest.mark.parametrize("begin", [0.0, 3.7, 31.2])
def test_windows_of_a_cycle_are_alike(begin):
    assert sum(begin <= due < begin + CYCLE_S for due, _ in sent(160, cycle_s=CYCLE_S)) == 40


# A cycle that is too short for one request has one: a load that never comes would wait for ever.
def test_a_short_cycle_has_a_request():
    assert [due // 1.0 for due, _ in sent(3, cycle_s=1.0, rate=0.01)] == [0.0, 1.0, 2.0]


# Another seed is another load, with a cycle and without; the same one is the same.
@pytest.mark.parametrize("cycle_s", [None, CYCLE_S])
def test_loads_are_seeded(cycle_s):
    assert sent(50, cycle_s=cycle_s, seed=1) == sent(50, cycle_s=cycle_s, seed=1)
    assert sent(50, cycle_s=cycle_s, seed=1) != sent(50, cycle_s=cycle_s, seed=2)


# Without a cycle nothing repeats; even arrivals are half a gap early or late at most.
def test_arrivals_without_a_cycle():
    assert len({drawn.question for _, drawn in sent(200)}) > 50
    gaps = [late - early for (early, _), (late, _) in pairwise(sent(50, even=True))]
    assert all(0.25 <= gap <= 0.75 for gap in gaps)


# A server that stalls is not spared: what is due is sent, whatever has been answered; after stop nothing is.
@pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; arrivals are by the real clock
async def test_open_loop(monkeypatch):
    asked, stalled = [], asyncio.Event()

    async def answered(load, _session, drawn):
        asked.append(drawn)
        if len(asked) == 5:
            load.stop()
            stalled.set()
        await stalled.wait()

    monkeypatch.setattr(LoadGenerator, "_request", answered)
    await LoadGenerator(Plan("http://nowhere", "m", ["why?"], rate=500.0)).run()
    assert len(asked) == 5
