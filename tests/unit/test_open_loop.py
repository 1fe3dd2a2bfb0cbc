"""When the open-loop load generator sends what."""

from itertools import islice, pairwise

import pytest

from benchmarks.load import LoadGenerator, Plan

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
