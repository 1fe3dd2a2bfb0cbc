"""What a request holds: the worst case of all that is under way, whatever runs beside it."""

from runtime.clock import SystemClock
from runtime.core.budgets.budget import Amount
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.ledger import HopTag, Outcome
from runtime.core.metering.usage import HopRecord, Usage
from runtime.core.swap.routes import RoutedRelease
from runtime.core.walk.walk import Walk
from runtime.walking.deadline import Deadline
from runtime.walking.spending import Spending
from tests.unit.traffic.test_chain import CHAIN, MESSAGES
from tests.unit.walking.both import BothStep, with_both

PROMPT = 10
"""Tokens of every prompt."""

MOST = 20
"""Tokens of every answer at most."""


class StubHold:
    """Keeps what it was asked to hold."""

    counts_tokens = True

    def __init__(self):
        self.held = []
        self.left = 0

    async def find_caps(self):
        """Find caps: there is one."""

    async def begin(self, worst):
        self.held.append(worst.tokens)

    async def cover(self, amount):
        self.held.append(amount.tokens)

    def leave(self):
        self.left += 1


async def count(call):
    return PROMPT


def spending(hold):
    release = RoutedRelease(1, "digest", "support", {}, {})
    return Spending(hold, release, Deadline(SystemClock(), 60.0, SystemClock().now()), count)


def walk_of(*steps, rehearsal=False):
    chain = CHAIN.model_copy(update={"steps": steps, "max_tokens": MOST})
    return Walk(chain, MESSAGES, {"max_tokens": MOST}, rehearsal=rehearsal)


def ended(call, tokens):
    record = HopRecord(call.step, "e", Usage(PROMPT, tokens), 0.0, 0.0, 1.0)
    return HopEnded(call.id, HopTag(call.id), Outcome.OK, record, 0.0)


ANSWER = with_both(CHAIN).steps[-1]
TWO = BothStep()


# All calls count in the worst case that is reserved at first, those beside each other, too.
async def test_the_worst_case_has_all_calls():
    hold = StubHold()
    await spending(hold).begin(walk_of(TWO, ANSWER, rehearsal=True))
    drafts = 2 * (PROMPT + MOST)
    assert hold.held == [drafts + PROMPT + 2 * MOST + MOST]


# A call that begins while another one is under way leaves what that one may spend reserved.
async def test_siblings_are_not_forgotten():
    hold = StubHold()
    money = spending(hold)
    one, other = walk_of(TWO, ANSWER).ready()
    await money.cover(one)
    await money.cover(other)
    assert hold.held == [PROMPT + MOST, 2 * (PROMPT + MOST)]
    money.hop_ended(ended(one, 3))
    await money.cover_again(other)
    assert hold.held[-1] == (PROMPT + 3) + 2 * (PROMPT + MOST)
    assert hold.left == 1


# What an attempt may still spend whose replica is lost stays reserved to the end, beside what comes after.
async def test_a_lost_attempt_stays_reserved():
    hold = StubHold()
    money = spending(hold)
    walk = walk_of(TWO, ANSWER)
    one, other = walk.ready()
    for call in (one, other):
        await money.cover(call)
    await money.cover_again(one)
    for call in (one, other):
        money.hop_ended(ended(call, 1))
        walk.record(call, ANSWER.kind.example("x"))
    (answer,) = walk.ready()
    await money.cover(answer)
    assert hold.held[-1] == 2 * (PROMPT + 1) + (PROMPT + MOST) + (PROMPT + MOST)


# What a hop has spent takes the place of what it might have.
async def test_spent_for_reserved():
    hold = StubHold()
    money = spending(hold)
    walk = walk_of(TWO, ANSWER)
    for call in walk.ready():
        await money.cover(call)
        money.hop_ended(ended(call, 1))
        walk.record(call, ANSWER.kind.example("x"))
    (answer,) = walk.ready()
    await money.cover(answer)
    assert hold.held[-1] == 2 * (PROMPT + 1) + PROMPT + MOST


# Where no cap counts tokens nothing is counted and nothing reserved.
async def test_nothing_to_count():
    hold = StubHold()
    hold.counts_tokens = False
    money = spending(hold)
    await money.begin(walk_of(TWO, ANSWER, rehearsal=True))
    (one, _) = walk_of(TWO, ANSWER).ready()
    await money.cover(one)
    assert hold.held == [Amount().tokens]
