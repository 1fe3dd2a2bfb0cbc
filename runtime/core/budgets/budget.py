"""Budgets and limits: what may be spent, by whom, in which window, and whether one more request fits.

Every cap is a counter of one subject in one window: what has been *spent*, and what is *reserved* for
requests that are under way, at their worst case. A request begins only if its worst case fits into all
its caps; so no number of gateways can overspend one, and none is refused while its worst case still fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from runtime.core.metering.cost import money_text
from runtime.core.metering.ledger import HopTag
from runtime.core.requests.sampling import UNASKED_CAP

WARNINGS = (80, 95)
"""At how many percent of a cap an event is logged and counted; of a soft one also when it is reached."""


class Per(StrEnum):
    """Whose spending a cap counts."""

    TENANT = "tenant"
    KEY = "key"
    SESSION = "session"
    REQUEST = "request"


class Unit(StrEnum):
    """What a cap counts."""

    TOKENS = "tokens"
    """Prompt and completion of every hop."""
    COST = "cost"
    """What these cost by the prices of the model set, in nano-units of its currency."""
    REQUESTS = "requests"
    CONCURRENT = "concurrent"
    """Requests that are under way; nothing is spent of it, and it has no window."""


OF_TOKENS = frozenset({Unit.TOKENS, Unit.COST})
"""What is charged by the ledger's rows, and reserved at its worst."""


def amount_text(unit: Unit, amount: int) -> str:
    """Return so much of a unit for people and for JSON: money in units of its currency."""
    return money_text(amount) if unit is Unit.COST else str(amount)


class Amount(NamedTuple):
    """What hops have spent, or may spend."""

    tokens: int = 0
    cost: int = 0
    """In nano-units."""

    def plus(self, other: Amount) -> Amount:
        """Return the sum, field by field."""
        return Amount(self.tokens + other.tokens, self.cost + other.cost)

    def beyond(self, other: Amount) -> Amount:
        """Return what of this is more than ``other``, field by field."""
        return Amount(max(0, self.tokens - other.tokens), max(0, self.cost - other.cost))

    def of(self, unit: Unit) -> int:
        """Return how much of ``unit`` it is."""
        return {Unit.TOKENS: self.tokens, Unit.COST: self.cost}.get(unit, 0)


class Window(StrEnum):
    """In which time a cap counts; windows follow the calendar in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class CapKind(StrEnum):
    """The meaning of a reached cap for a client."""

    LIMIT = "limit"
    """Come again in the next window."""
    BUDGET = "budget"
    """The money is spent; coming again soon does not help."""


@dataclass(frozen=True)
class Cap:
    """A budget or a limit of a tenant, of one of its keys, or of each of its sessions or requests."""

    id: int
    tenant: str
    key: str
    """The key's id if it is of one key alone, else empty."""
    per: Per
    unit: Unit
    window: Window
    limit: int
    kind: CapKind = CapKind.BUDGET
    hard: bool = True
    """A soft one is never refused by; it warns."""

    @property
    def shares(self) -> tuple[int, ...]:
        """At how many percent of it those who look after it are warned, once in each window."""
        if self.per is Per.REQUEST:  # it bounds each request, and a warning for every one would be noise
            return () if self.hard else (100,)
        return WARNINGS if self.hard else (*WARNINGS, 100)

    def __str__(self) -> str:
        """Return what it caps, for people."""
        whose = f"tenant {self.tenant}" + (f", key {self.key}" if self.key else "")
        each = "" if self.per is Per.TENANT else f", of each {self.per.value} by itself"
        kind = f"{'hard' if self.hard else 'soft'} {self.kind.value}"
        amount = f"{amount_text(self.unit, self.limit)} {self.unit.value}"
        window = "in total" if self.window is Window.TOTAL else f"per {self.window.value}"
        return f"{whose}: {kind} of {amount} {window}{each}"

    def counts(self, tag: HopTag) -> bool:
        """Say whether spending under ``tag`` counts towards this cap."""
        return self.tenant == tag.tenant and self.key in ("", tag.key) and bool(self.subject(tag))

    def subject(self, tag: HopTag) -> str:
        """Return whose counter it is; empty if the tag names nobody of the kind."""
        match self.per:
            case Per.TENANT:
                return tag.tenant
            case Per.KEY:
                return tag.key
            case Per.SESSION:
                return tag.session
            case Per.REQUEST:
                return tag.request


class CounterId(NamedTuple):
    """Which counter: of which cap, whose, and from when on (seconds since the Unix epoch)."""

    cap: int
    subject: str
    window: int


class Counter(NamedTuple):
    """How a counter stands."""

    spent: int = 0
    reserved: int = 0
    warned: int = 0
    """How many of its cap's warning shares it has passed."""


class Claim(NamedTuple):
    """What one request takes of one cap at its beginning."""

    counter: CounterId
    cap: Cap
    spent: int
    """Spent at once."""
    reserved: int
    """Kept until the request has ended."""


@dataclass(frozen=True)
class Refusal:
    """Which cap a request does not fit into, how it stands, and when its window ends."""

    cap: Cap
    counter: Counter
    wanted: int
    ends: float


class CapStanding(NamedTuple):
    """How a cap stands in its newest window."""

    cap: Cap
    counter: Counter
    """Of those that the cap counts by themselves, the one's that has taken most of it."""
    subject: str = ""
    """Whose that is; empty if nobody has begun yet."""
    subjects: int = 0
    """How many it counts."""


@dataclass(frozen=True)
class Grant:
    """How a request's caps stand just after it has begun, at ``at``."""

    at: float
    counters: Sequence[tuple[Cap, Counter]]

    def tightest(self, unit: Unit) -> tuple[int, int, float] | None:
        """Return limit, what remains, and seconds to the window's end, of the minute's tightest limit."""
        limits = [
            (max(0, cap.limit - counter.spent - counter.reserved), cap.limit)
            for cap, counter in self.counters
            if cap.unit is unit and cap.window is Window.MINUTE
        ]
        if not limits:
            return None
        remaining, limit = min(limits)
        return limit, remaining, window_of(Window.MINUTE, self.at)[1] - self.at


def window_of(window: Window, at: float) -> tuple[int, float]:
    """Return when the window that holds ``at`` begins and ends; one without an end ends never."""
    if window is Window.TOTAL:
        return 0, float("inf")
    if window is Window.MONTH:
        day = datetime.fromtimestamp(at, UTC)
        begin = datetime(day.year, day.month, 1, tzinfo=UTC)
        end = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        return int(begin.timestamp()), end.timestamp()
    seconds = {Window.MINUTE: 60, Window.HOUR: 3600, Window.DAY: 86_400}[window]
    begin_s = int(at // seconds) * seconds
    return begin_s, float(begin_s + seconds)


def claims(caps: Iterable[Cap], tag: HopTag, worst: Amount, at: float) -> list[Claim]:
    """Return what a request that begins at ``at`` takes of every cap that counts it."""
    return [_claim(cap, tag, worst, at) for cap in caps if cap.counts(tag)]


def _claim(cap: Cap, tag: HopTag, worst: Amount, at: float) -> Claim:
    # What is under way goes on when a window ends, so a limit of it has none.
    window = Window.TOTAL if cap.unit is Unit.CONCURRENT else cap.window
    counter = CounterId(cap.id, cap.subject(tag), window_of(window, at)[0])
    match cap.unit:
        case Unit.TOKENS | Unit.COST:
            return Claim(counter, cap, 0, worst.of(cap.unit))
        case Unit.REQUESTS:
            return Claim(counter, cap, 1, 0)
        case Unit.CONCURRENT:
            return Claim(counter, cap, 0, 1)


COUNTABLE = 2**63 - 1
"""The greatest number that databases keep in a column."""


def refusal(wanted: Sequence[Claim], counters: Mapping[CounterId, Counter], at: float) -> Refusal | None:
    """Return the first cap that a request does not fit into; None if it fits into all.

    A soft one refuses only what could not be counted any more.
    """
    for claim in wanted:
        counter = counters.get(claim.counter, Counter())
        takes = claim.spent + claim.reserved
        most = claim.cap.limit if claim.cap.hard else COUNTABLE
        if counter.spent + counter.reserved + takes > most:
            return Refusal(claim.cap, counter, takes, window_of(claim.cap.window, at)[1])
    return None


def taken(wanted: Sequence[Claim], counters: Mapping[CounterId, Counter]) -> dict[CounterId, Counter]:
    """Return how the counters stand once a request that fits has begun."""
    changed: dict[CounterId, Counter] = {}
    for claim in wanted:
        counter = changed.get(claim.counter) or counters.get(claim.counter, Counter())
        changed[claim.counter] = counter._replace(
            spent=counter.spent + claim.spent, reserved=counter.reserved + claim.reserved
        )
    return changed


def settled(
    counters: Mapping[CounterId, Counter], spent: Mapping[CounterId, int], released: Mapping[CounterId, int]
) -> dict[CounterId, Counter]:
    """Return how the counters stand once more is ``spent`` of them, and what is ``released`` not reserved."""
    return {
        which: counter._replace(
            spent=counter.spent + spent.get(which, 0), reserved=counter.reserved - released.get(which, 0)
        )
        for which, counter in counters.items()
    }


def completion_cap(body: Mapping[str, Any]) -> int:
    """Return how many tokens a call may generate, all choices together."""
    return int(body.get("max_tokens") or body.get(UNASKED_CAP) or 0) * choices_of(body)


def choices_of(body: Mapping[str, Any]) -> int:
    """Return how many answers a call wants."""
    return int(body.get("n") or 1)


@dataclass(frozen=True)
class Crossing:
    """Spending has just passed a share of a cap, for the first time in its window."""

    cap: Cap
    counter: CounterId
    share: int
    """In percent."""
    spent: int

    def __str__(self) -> str:
        """Return the warning for operators; of a key it has the id alone."""
        cap, subject = self.cap, self.counter.subject
        keyed = cap.key or (subject if cap.per is Per.KEY else "")
        whose = f"tenant {cap.tenant}" + (f", key {keyed}" if keyed else "")
        if cap.per in {Per.SESSION, Per.REQUEST}:
            whose += f", {cap.per.value} {subject!r}"
        began = datetime.fromtimestamp(self.counter.window, UTC).isoformat()
        window = cap.window.value + ("" if cap.window is Window.TOTAL else f" since {began}")
        spent, limit = amount_text(cap.unit, self.spent), amount_text(cap.unit, cap.limit)
        spent = f"{spent} of {limit} {cap.unit.value} are spent"
        kind = f"{'hard' if cap.hard else 'soft'} {cap.kind.value} {cap.id}"
        return f"{whose}: {spent}, {self.share} % of the {kind} ({window})"


def crossings(caps: Mapping[CounterId, Cap], stands: Mapping[CounterId, Counter]) -> list[Crossing]:
    """Return which shares of their caps counters have passed that nobody has been warned of yet."""
    return [
        Crossing(caps[counter], counter, share, stand.spent)
        for counter, stand in stands.items()
        for share in caps[counter].shares[stand.warned : _passed(caps[counter], stand)]
    ]


def _passed(cap: Cap, stand: Counter) -> int:
    return sum(stand.spent * 100 >= share * cap.limit for share in cap.shares) if stand.spent else 0


def warned(stands: Mapping[CounterId, Counter], crossed: Iterable[Crossing]) -> dict[CounterId, Counter]:
    """Return how counters stand once somebody has been warned of what they ``crossed``."""
    noted = dict(stands)
    for each in crossed:
        counter = noted[each.counter]
        noted[each.counter] = counter._replace(warned=counter.warned + 1)
    return noted
