"""Caps, their counters, and reservations. Whether a request fits is ``core.budgets.budget``'s to say.

Everything happens inside transactions that hold the counters they read: several gateways see each
other's reservations, and a request is either reserved with all its caps or with none.

What runs for every request is prepared: a group of requests takes a few statements, however many there are.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from runtime.clock import Clock
from runtime.core.budgets.budget import (
    OF_TOKENS,
    Amount,
    Cap,
    CapStanding,
    Claim,
    Counter,
    CounterId,
    Crossing,
    Refusal,
    Standing,
    crossings,
    refusal,
    settled,
    taken,
    warned,
    window_of,
)
from runtime.core.budgets.forecast import Forecast
from runtime.core.metering.ledger import HopTag
from runtime.core.views.audit import cap_changed
from runtime.store.audit import note
from runtime.store.spending.caps import drop_cap, every_cap, put_cap
from runtime.store.spending.forecast import forecast_of
from runtime.store.spending.idle_counters import drop_idle_counters
from runtime.store.sql.database import (
    Turn,
    clock_of,
    insert_into,
    reading,
    take_turns,
    writing,
    writing_directly,
)
from runtime.store.sql.patience import REPORT_SECONDS
from runtime.store.sql.prepared import Direct, Prepared, PreparedAmong
from runtime.store.tables import COUNTERS, RESERVATIONS

_log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""How often it is looked for counters that nobody will count on any more."""

SESSION_KEPT_SECONDS = 90 * 86_400.0
"""How long after its last request a session is remembered by budgets in total, unless told otherwise."""

FRESH_SECONDS = 2.0
"""How old the caps may be that this process goes by; a new one counts everywhere after so long."""

_ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
_ORDER = (COUNTERS.c.cap, sa.collate(COUNTERS.c.subject, "C"), COUNTERS.c.window)
"""As Python sorts them: all who hold several counters take them in one order, or wait for each other."""
_COLUMNS = (*_ID, *(COUNTERS.c[name] for name in Counter._fields))
_READ = PreparedAmong(_ID, sa.select(*_COLUMNS).where)
_READ_AND_HOLD = PreparedAmong(
    _ID, lambda among: sa.select(*_COLUMNS).where(among).order_by(*_ORDER).with_for_update()
)
_KEEP = Prepared(
    sa.update(COUNTERS)
    .where(*(column == sa.bindparam(f"of_{column.name}") for column in _ID))
    .values({name: sa.bindparam(name) for name in (*Counter._fields, "used")})
)

_RESERVE = Prepared(sa.insert(RESERVATIONS))
_RELEASE = sa.delete(RESERVATIONS).returning(
    RESERVATIONS.c.cap, RESERVATIONS.c.subject, RESERVATIONS.c.window, RESERVATIONS.c.amount
)
_OF_CALLS = PreparedAmong([RESERVATIONS.c.call], _RELEASE.where)
_EXPIRED_AT_ONCE = 500
"""Calls of one transaction that releases what has expired: others wait for it."""
_CALLS = (
    sa.select(RESERVATIONS.c.call)
    .where(RESERVATIONS.c.expires < sa.bindparam("until"))
    .distinct()
    .limit(_EXPIRED_AT_ONCE)
)
_EXPIRED = Prepared(_RELEASE.where(RESERVATIONS.c.call.in_(_CALLS)))


@dataclass(frozen=True)
class Wish:
    """A request that wants to begin."""

    call: str
    """Its id, under which what is reserved is released."""
    claims: Sequence[Claim]
    at: float
    expires: float
    """When whoever asks is dead if it has not released by then; seconds since the Unix epoch."""


class Observer(Protocol):
    """Who wants to hear of warnings, in the thread that wrote what led to them."""

    def warned(self, cap: Cap, share: int) -> None:
        """Take note that spending has passed ``share`` percent of ``cap``.

        Only one of all processes is told, once in each window.
        """
        ...


class MissingCounters(Exception):
    """Counters have to be made before a transaction takes any; it is rolled back, and begins again."""

    def __init__(self, counters: Sequence[CounterId]) -> None:
        super().__init__(f"{len(counters)} counters are not there yet")
        self.counters = counters


class Budgets:
    """Reads and changes caps and counters. Calls block, and raise StoreUnavailable.

    Of all processes, the one whose transaction takes a counter past a share of its cap warns of it. Windows,
    and when reservations expire, go by the store's clock, as far as it has one: clocks of gateways differ.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        observers: Sequence[Observer] = (),
        sessions_kept_s: float = SESSION_KEPT_SECONDS,
    ) -> None:
        self.skew = 0.0
        """By how many seconds the store's clock was ahead of this process's when caps were read last."""
        self._sessions_kept_s = sessions_kept_s
        self._idle_at = float("-inf")
        self._engine = engine
        self._clock = clock
        self._observers = observers
        self._caps: list[Cap] = []
        self._of_tenant: Mapping[str, list[Cap]] = {}
        self._edition = 0
        self._fresh = self._edition, float("-inf")
        self._new = Prepared(insert_into(engine, COUNTERS).on_conflict_do_nothing())
        # SQLite has one writer at a time, and knows no collation of this name.
        self._read_and_hold = _READ if engine.dialect.name == "sqlite" else _READ_AND_HOLD

    # -- caps -------------------------------------------------------------------------------------

    @property
    def known(self) -> list[Cap] | None:
        """All caps if they are known and fresh enough; else None, and ``caps`` must be asked."""
        edition, until = self._fresh
        return self._caps if edition == self._edition and self._clock.now() < until else None

    def caps(self) -> list[Cap]:
        """Return all caps, as they were at most ``FRESH_SECONDS`` ago, and not before ``forget``."""
        if self.known is None:
            edition = self._edition
            with reading(self._engine) as connection:
                self._caps = every_cap(connection)
                self._compare_clocks(connection)
            of_tenant: defaultdict[str, list[Cap]] = defaultdict(list)
            for cap in self._caps:
                of_tenant[cap.tenant].append(cap)
            self._of_tenant = of_tenant
            self._fresh = edition, self._clock.now() + FRESH_SECONDS
        return self._caps

    def _compare_clocks(self, connection: Connection) -> None:
        asked = self._clock.wall()
        told = clock_of(connection)
        if told is not None:
            self.skew = told - (asked + self._clock.wall()) / 2.0

    def now(self) -> float:
        """Return what the store's clock says, in seconds since the Unix epoch."""
        self.caps()
        return self._clock.wall() + self.skew

    def counting(self, tag: HopTag) -> list[Cap]:
        """Return those of the caps last read that count what is spent under ``tag``."""
        return [cap for cap in self._of_tenant.get(tag.tenant, ()) if cap.counts(tag)]

    def forget(self) -> None:
        """Let the caps be read again: what is being read meanwhile may be too old already."""
        self._edition += 1

    def set(self, cap: Cap, by: str | None = None) -> None:
        """Add a cap; one of the same tenant, key, unit and window is replaced, and goes on counting.

        ``by`` is who wants it, for the audit log, which is told with it or not at all; None if nobody asked.
        """
        with writing(self._engine) as connection:
            self._note(connection, by, put_cap(connection, cap), cap)
        self.forget()

    def remove(self, cap: int, by: str | None = None) -> bool:
        """Remove a cap and its counters; say whether there was one. ``by`` is as for ``set``."""
        with writing(self._engine) as connection:
            gone = drop_cap(connection, cap)
            if gone is not None:
                self._note(connection, by, gone, None)
        self.forget()
        return gone is not None

    def _note(self, connection: Connection, by: str | None, before: Cap | None, after: Cap | None) -> None:
        entry = cap_changed(self._clock.wall(), by, before, after) if by is not None else None
        if entry is not None:
            note(connection, entry)

    def counters(self, wanted: Sequence[CounterId]) -> dict[CounterId, Counter]:
        """Return how counters stand."""
        with reading(self._engine) as connection:
            direct = Direct(connection.connection.cursor(), connection.dialect)
            return _counters(_READ.rows(direct, wanted))

    def counters_of(self, cap: int) -> list[Counter]:
        """Return how all counters of a cap stand, newest window first."""
        newest = sa.select(COUNTERS).where(COUNTERS.c.cap == cap).order_by(COUNTERS.c.window.desc())
        with reading(self._engine) as connection:
            return [Counter(row.spent, row.reserved, row.warned) for row in connection.execute(newest)]

    def standing(self) -> list[CapStanding]:
        """Return how every cap's newest window stands: of its subjects, the one that has taken most of it."""
        newest = sa.select(COUNTERS.c.cap, sa.func.max(COUNTERS.c.window).label("window"))
        latest = newest.group_by(COUNTERS.c.cap).subquery()
        same = (COUNTERS.c.cap == latest.c.cap) & (COUNTERS.c.window == latest.c.window)
        most = (COUNTERS.c.spent + COUNTERS.c.reserved).desc()
        place = sa.func.row_number().over(partition_by=COUNTERS.c.cap, order_by=(most, COUNTERS.c.subject))
        subjects = sa.func.count().over(partition_by=COUNTERS.c.cap)
        ranked = (
            sa.select(*_COLUMNS, place.label("place"), subjects.label("subjects"))
            .join(latest, same)
            .subquery()
        )
        first = sa.select(ranked).where(ranked.c.place == 1)
        with reading(self._engine, REPORT_SECONDS) as connection:
            stand = {
                row.cap: (Counter(row.spent, row.reserved, row.warned), row.subject, row.subjects)
                for row in connection.execute(first)
            }
        return [CapStanding(cap, *stand.get(cap.id, (Counter(), "", 0))) for cap in self.caps()]

    def forecast(self) -> list[Forecast]:
        """Return for every cap when it runs out at the present rate, if it does within its window."""
        caps, at = self.caps(), self.now()
        with reading(self._engine, REPORT_SECONDS) as connection:
            return [forecast_of(connection, cap, at) for cap in caps]

    # -- reservations -----------------------------------------------------------------------------

    def reserve(self, wishes: Sequence[Wish]) -> list[Standing | Refusal]:
        """Let each of ``wishes`` begin, in their order, or say which cap it does not fit into."""
        while True:
            try:
                return self._try_to_reserve(wishes)
            except MissingCounters as missing:
                self.make(missing.counters)

    def _try_to_reserve(self, wishes: Sequence[Wish]) -> list[Standing | Refusal]:
        caps = {claim.counter: claim.cap for wish in wishes for claim in wish.claims}
        with writing_directly(self._engine) as direct:
            counters = self._hold(direct, caps, ())
            changed: dict[CounterId, Counter] = {}
            begun: list[Wish] = []
            answers: list[Standing | Refusal] = []
            for wish in wishes:
                refused = refusal(wish.claims, counters, wish.at)
                if refused is None:
                    begun.append(wish)
                    changed |= taken(wish.claims, counters)
                    counters |= changed
                answers.append(refused or _standing(wish, counters))
            crossed = crossings(caps, changed)
            _keep(direct, warned(changed, crossed), max((wish.at for wish in begun), default=0.0))
            _reserve(direct, begun)
        self.tell(crossed)
        return answers

    def _hold(
        self, direct: Direct, wanted: Iterable[CounterId], old: Iterable[CounterId]
    ) -> dict[CounterId, Counter]:
        """Return how counters stand, and keep others from changing them.

        Those of ``old`` are held, too, but for those of caps that are gone. Raises MissingCounters: one of
        ``wanted`` is not there. To make it here would be to take it out of its turn, behind others.
        """
        counters = sorted({*wanted, *old})
        held = _counters(self._read_and_hold.rows(direct, counters))
        missing = [counter for counter in wanted if counter not in held]
        if not missing:
            return held
        if direct.dialect.name == "postgresql":
            raise MissingCounters(missing)
        self._make(direct, missing)
        return _counters(self._read_and_hold.rows(direct, counters))

    def make(self, counters: Sequence[CounterId]) -> None:
        """Make counters, in a transaction that takes nothing else."""
        with writing_directly(self._engine) as direct:
            self._make(direct, counters)

    def _make(self, direct: Direct, missing: Sequence[CounterId]) -> None:
        used = self._clock.wall() + self.skew
        rows = [{**counter._asdict(), **Counter()._asdict(), "used": used} for counter in sorted(missing)]
        self._new.each(direct, rows)

    def sweep(self, now: float, lag: float = 0.0) -> int:
        """Release what is reserved for requests whose gateway has died; return how many reservations it was.

        Those that expired more than ``lag`` seconds before ``now``, by the store's clock: what is spent of
        them must be in the ledger. Counters that are over go with it.
        """
        released = self._release_expired(now - lag)
        if not 0.0 <= now - self._idle_at < IDLE_SECONDS:
            self._idle_at = now
            drop_idle_counters(self._engine, now, self._sessions_kept_s)
        return released

    def _release_expired(self, until: float) -> int:
        expired, count = sa.select(RESERVATIONS.c.call).where(RESERVATIONS.c.expires < until).limit(1), 0
        while True:
            with reading(self._engine) as connection:
                if connection.execute(expired).first() is None:
                    return count
            with writing_directly(self._engine) as direct:
                # Alone: who settles takes reservations in another order, and each would wait for the other.
                take_turns(direct, Turn.LEDGER, alone=True)
                gone = _EXPIRED.rows(direct, until=until)
                released = _summed(gone)
                _keep(direct, settled(self._hold(direct, (), released), {}, released), until)
            count += len(gone)

    # -- spending ---------------------------------------------------------------------------------

    def settle(
        self, direct: Direct, spent: Iterable[tuple[HopTag, Amount]], ended: Sequence[str]
    ) -> list[Crossing]:
        """Count hops as spent in all caps last read that count them, and release what ``ended`` calls hold.

        It happens within the caller's transaction. Returns what to ``tell`` once that is committed. Raises
        MissingCounters: roll back, ``make`` them, and begin again.
        """
        sums, cap_of = self._charges(spent)
        # Before the counters, as everybody takes them who takes both: else two would wait for each other.
        released = _summed(_OF_CALLS.rows(direct, [(call,) for call in ended]))
        changed = settled(self._hold(direct, sums, released), sums, released)
        crossed = crossings(cap_of, {counter: changed[counter] for counter in sums})
        _keep(direct, warned(changed, crossed), self._clock.wall() + self.skew)
        return crossed

    def _charges(
        self, spent: Iterable[tuple[HopTag, Amount]]
    ) -> tuple[dict[CounterId, int], dict[CounterId, Cap]]:
        """Return how much is spent of which counters, and whose caps these are."""
        sums: defaultdict[CounterId, int] = defaultdict(int)
        cap_of: dict[CounterId, Cap] = {}
        for tag, amount in spent:
            for cap in self.counting(tag):
                if cap.unit in OF_TOKENS and amount.of(cap.unit):
                    begins, _ = window_of(cap.window, tag.admitted or tag.started)
                    counter = CounterId(cap.id, cap.subject(tag), begins)
                    sums[counter] += amount.of(cap.unit)
                    cap_of[counter] = cap
        return sums, cap_of

    def tell(self, crossed: Iterable[Crossing]) -> None:
        """Warn of shares that have been passed, once that is committed."""
        for each in crossed:
            _log.warning("%s", each)
            for observer in self._observers:
                observer.warned(each.cap, each.share)


def _standing(wish: Wish, counters: Mapping[CounterId, Counter]) -> Standing:
    return Standing(wish.at, [(claim.cap, counters[claim.counter]) for claim in wish.claims])


def _counters(rows: Iterable[Sequence[Any]]) -> dict[CounterId, Counter]:
    return {CounterId(*row[:3]): Counter(*row[3:]) for row in rows}


def _summed(gone: Iterable[Sequence[Any]]) -> dict[CounterId, int]:
    """Return how much reservations that are gone had reserved of each counter."""
    sums: defaultdict[CounterId, int] = defaultdict(int)
    for *counter, amount in gone:
        sums[CounterId(*counter)] += amount
    return sums


def _keep(direct: Direct, changed: Mapping[CounterId, Counter], used: float) -> None:
    rows = [{**_of(counter), **changed[counter]._asdict(), "used": used} for counter in sorted(changed)]
    _KEEP.each(direct, rows)


def _reserve(direct: Direct, begun: Sequence[Wish]) -> None:
    rows = [
        {**claim.counter._asdict(), "call": wish.call, "amount": claim.reserved, "expires": wish.expires}
        for wish in begun
        for claim in wish.claims
        if claim.reserved
    ]
    _RESERVE.each(direct, rows)


def _of(counter: CounterId) -> dict[str, object]:
    """Return the parameters by which a statement finds a counter."""
    return {"of_cap": counter.cap, "of_subject": counter.subject, "of_window": counter.window}
