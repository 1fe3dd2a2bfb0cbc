"""Caps, their counters, and reservations. Whether a request fits is ``core.budget``'s to say.

Everything happens inside transactions that hold the counters they read: several gateways see each
other's reservations, and a request is either reserved with all its caps or with none.

What runs for every request is a statement made once: to make one takes SQLAlchemy longer than to run it.
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
from runtime.core.audit import cap_changed
from runtime.core.budget import (
    OF_TOKENS,
    Amount,
    Cap,
    Claim,
    Counter,
    CounterId,
    Crossing,
    Refusal,
    Standing,
    Window,
    crossings,
    refusal,
    taken,
    warned,
    window_of,
)
from runtime.core.forecast import Forecast
from runtime.core.ledger import HopTag
from runtime.store.audit import note
from runtime.store.caps import drop_cap, every_cap, put_cap
from runtime.store.database import insert_into, reading, writing
from runtime.store.forecast import forecast_of
from runtime.store.tables import CAPS, COUNTERS, RESERVATIONS

_log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""How old the caps may be that this process goes by; a new one counts everywhere after so long."""

_ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
_ONE = sa.update(COUNTERS).where(*(column == sa.bindparam(f"of_{column.name}") for column in _ID))
_SOME = (
    sa.select(COUNTERS)
    .where(sa.tuple_(*_ID).in_(sa.bindparam("wanted", expanding=True)))
    # Says nothing more, but SQLite finds no rows by a tuple: it would read every counter there is.
    .where(COUNTERS.c.cap.in_(sa.bindparam("caps", expanding=True)))
    .where(COUNTERS.c.subject.in_(sa.bindparam("subjects", expanding=True)))
)
_ORDER = (COUNTERS.c.cap, sa.collate(COUNTERS.c.subject, "C"), COUNTERS.c.window)
"""As Python sorts them: all who hold several counters take them in one order, or wait for each other."""
_KEEP = _ONE.values({name: sa.bindparam(name) for name in Counter._fields})
_LESS = _ONE.values(reserved=COUNTERS.c.reserved - sa.bindparam("less"))

_RESERVE = sa.insert(RESERVATIONS)
_RELEASED = (RESERVATIONS.c.cap, RESERVATIONS.c.subject, RESERVATIONS.c.window, RESERVATIONS.c.amount)
_DELETE = sa.delete(RESERVATIONS).returning(*_RELEASED)
_KEPT = sa.select(*_RELEASED[:3]).where(RESERVATIONS.c.call.in_(sa.bindparam("calls", expanding=True)))
_OF_CALLS = _DELETE.where(RESERVATIONS.c.call.in_(sa.bindparam("calls", expanding=True)))
_OVER = sa.delete(COUNTERS).where(
    COUNTERS.c.reserved == 0,
    COUNTERS.c.window < sa.bindparam("begins"),
    COUNTERS.c.cap.in_(sa.select(CAPS.c.id).where(CAPS.c.window == sa.bindparam("kind"))),
)
_EXPIRED = _DELETE.where(RESERVATIONS.c.expires < sa.bindparam("now"))


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


class Budgets:
    """Reads and changes caps and counters. Calls block, and raise StoreUnavailable.

    Of all processes, the one whose transaction takes a counter past a share of its cap warns of it.
    """

    def __init__(self, engine: Engine, clock: Clock, observers: Sequence[Observer] = ()) -> None:
        self._engine = engine
        self._clock = clock
        self._observers = observers
        self._caps: list[Cap] = []
        self._of_tenant: Mapping[str, list[Cap]] = {}
        self._edition = 0
        self._fresh = self._edition, float("-inf")
        new = insert_into(engine, COUNTERS)
        self._new = new.on_conflict_do_nothing()
        more = {"spent": COUNTERS.c.spent + new.excluded.spent}
        # SQLite has one writer at a time, and knows no collation of this name.
        self._hold_some = _SOME.order_by(*_ORDER).with_for_update() if _has_rows_to_hold(engine) else _SOME
        self._more = new.on_conflict_do_update(index_elements=list(_ID), set_=more).returning(COUNTERS)

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
            of_tenant: defaultdict[str, list[Cap]] = defaultdict(list)
            for cap in self._caps:
                of_tenant[cap.tenant].append(cap)
            self._of_tenant = of_tenant
            self._fresh = edition, self._clock.now() + FRESH_SECONDS
        return self._caps

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
            return self._read(connection, _SOME, wanted)

    def counters_of(self, cap: int) -> list[Counter]:
        """Return how all counters of a cap stand, newest window first."""
        newest = sa.select(COUNTERS).where(COUNTERS.c.cap == cap).order_by(COUNTERS.c.window.desc())
        with reading(self._engine) as connection:
            return [Counter(row.spent, row.reserved, row.warned) for row in connection.execute(newest)]

    def standing(self) -> list[tuple[Cap, Counter]]:
        """Return every cap, and how its newest window stands, all its subjects together."""
        newest = sa.select(COUNTERS.c.cap, sa.func.max(COUNTERS.c.window).label("window")).group_by(
            COUNTERS.c.cap
        )
        latest = newest.subquery()
        sums = [sa.func.sum(COUNTERS.c[name]) for name in Counter._fields]
        same = (COUNTERS.c.cap == latest.c.cap) & (COUNTERS.c.window == latest.c.window)
        select = sa.select(COUNTERS.c.cap, *sums).join(latest, same).group_by(COUNTERS.c.cap)
        with reading(self._engine) as connection:
            stand = {cap: Counter(*map(int, sums)) for cap, *sums in connection.execute(select)}
        return [(cap, stand.get(cap.id, Counter())) for cap in self.caps()]

    def forecast(self) -> list[Forecast]:
        """Return for every cap when it runs out at the present rate, if it does within its window."""
        caps, at = self.caps(), self._clock.wall()
        with reading(self._engine) as connection:
            return [forecast_of(connection, cap, at) for cap in caps]

    # -- reservations -----------------------------------------------------------------------------

    def reserve(self, wishes: Sequence[Wish]) -> list[Standing | Refusal]:
        """Let each of ``wishes`` begin, in their order, or say which cap it does not fit into."""
        caps = {claim.counter: claim.cap for wish in wishes for claim in wish.claims}
        wanted = sorted(caps)
        with writing(self._engine) as connection:
            counters = self._hold(connection, wanted)
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
            _keep(connection, warned(changed, crossed))
            _reserve(connection, begun)
        self.tell(crossed)
        return answers

    def _hold(self, connection: Connection, wanted: Sequence[CounterId]) -> dict[CounterId, Counter]:
        """Return how counters stand, and keep others from changing them; new ones are made."""
        held = self._read(connection, self._hold_some, wanted)
        missing = [counter for counter in wanted if counter not in held]
        if not missing:
            return held
        fresh = [{**counter._asdict(), **Counter()._asdict()} for counter in missing]
        connection.execute(self._new, fresh)
        return self._read(connection, self._hold_some, wanted)

    def _read(
        self, connection: Connection, select: sa.Select[Any], wanted: Sequence[CounterId]
    ) -> dict[CounterId, Counter]:
        if not wanted:
            return {}
        parts = {
            "caps": sorted({one.cap for one in wanted}),
            "subjects": sorted({one.subject for one in wanted}),
        }
        rows = connection.execute(select, {"wanted": list(wanted), **parts})
        return {CounterId(*row[:3]): Counter(*row[3:]) for row in rows}

    def sweep(self, now: float) -> int:
        """Release what is reserved for requests whose gateway has died; return how many counters it was.

        Counters of windows that are over go with it: what was spent then is in the ledger.
        """
        with writing(self._engine) as connection:
            given_back = _give_back(connection, _EXPIRED, now=now)
            begins = {window: window_of(window, now)[0] for window in Window}
            connection.execute(_OVER, [{"kind": each.value, "begins": when} for each, when in begins.items()])
        return given_back

    # -- spending ---------------------------------------------------------------------------------

    def settle(
        self, connection: Connection, spent: Iterable[tuple[HopTag, Amount]], ended: Sequence[str]
    ) -> list[Crossing]:
        """Count hops as spent in all caps last read that count them, and release what ``ended`` calls hold.

        It happens within the caller's transaction. Returns what to ``tell`` once that is committed.
        """
        sums: defaultdict[CounterId, int] = defaultdict(int)
        cap_of: dict[CounterId, Cap] = {}
        for tag, amount in spent:
            for cap in self.counting(tag):
                if cap.unit in OF_TOKENS and amount.of(cap.unit):
                    begins, _ = window_of(cap.window, tag.admitted or tag.started)
                    counter = CounterId(cap.id, cap.subject(tag), begins)
                    sums[counter] += amount.of(cap.unit)
                    cap_of[counter] = cap
        self._hold_all(connection, sums, ended)
        crossed = self._charge(connection, sums, cap_of)
        if ended:
            _give_back(connection, _OF_CALLS, calls=ended)
        return crossed

    def _hold_all(self, connection: Connection, charged: Iterable[CounterId], ended: Sequence[str]) -> None:
        """Hold what is charged and what is released in one order: two passes would meet others' one."""
        if ended and _has_rows_to_hold(self._engine):
            kept = {CounterId(*row) for row in connection.execute(_KEPT, {"calls": ended})}
            self._read(connection, self._hold_some, sorted({*charged, *kept}))

    def _charge(
        self, connection: Connection, sums: Mapping[CounterId, int], cap_of: Mapping[CounterId, Cap]
    ) -> list[Crossing]:
        stands = self._add(connection, sums)
        crossed = crossings(cap_of, stands)
        _keep(connection, warned({each.counter: stands[each.counter] for each in crossed}, crossed))
        return crossed

    def _add(self, connection: Connection, sums: Mapping[CounterId, int]) -> dict[CounterId, Counter]:
        """Add to what is spent of counters; return how they stand, held until the transaction ends."""
        if not sums:
            return {}
        rows = [{**counter._asdict(), **Counter(sums[counter])._asdict()} for counter in sorted(sums)]
        return {CounterId(*row[:3]): Counter(*row[3:]) for row in connection.execute(self._more, rows)}

    def tell(self, crossed: Iterable[Crossing]) -> None:
        """Warn of shares that have been passed, once that is committed."""
        for each in crossed:
            _log.warning("%s", each)
            for observer in self._observers:
                observer.warned(each.cap, each.share)


def _standing(wish: Wish, counters: Mapping[CounterId, Counter]) -> Standing:
    return Standing(wish.at, [(claim.cap, counters[claim.counter]) for claim in wish.claims])


def _has_rows_to_hold(engine: Engine) -> bool:
    """Say whether several can write at once, each holding rows of its own."""
    return engine.dialect.name != "sqlite"


def _keep(connection: Connection, changed: Mapping[CounterId, Counter]) -> None:
    if changed:
        rows = [_of(counter) | changed[counter]._asdict() for counter in sorted(changed)]
        connection.execute(_KEEP, rows)


def _reserve(connection: Connection, begun: Sequence[Wish]) -> None:
    rows = [
        {**claim.counter._asdict(), "call": wish.call, "amount": claim.reserved, "expires": wish.expires}
        for wish in begun
        for claim in wish.claims
        if claim.reserved
    ]
    if rows:
        connection.execute(_RESERVE, rows)


def _give_back(connection: Connection, delete: sa.sql.dml.ReturningDelete[Any], **which: object) -> int:
    gone = connection.execute(delete, which).all()
    if not gone:
        return 0
    rows = [_of(CounterId(*row[:3])) | {"less": row.amount} for row in sorted(gone, key=tuple)]
    connection.execute(_LESS, rows)
    return len(gone)


def _of(counter: CounterId) -> dict[str, object]:
    """Return the parameters by which a statement finds a counter."""
    return {"of_cap": counter.cap, "of_subject": counter.subject, "of_window": counter.window}
