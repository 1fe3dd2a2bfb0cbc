"""Caps, their counters, and reservations. ``core.budgets.budget`` decides whether a request fits.

Everything happens inside transactions that hold the counters they read: several gateways see each
other's reservations, and a request is either reserved with all its caps or with none.

What runs for every request is prepared: a group of requests takes a few statements, however many there are.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sqlalchemy.engine import Connection, Engine

from runtime.clock import Clock
from runtime.core.budgets.budget import (
    OF_TOKENS,
    Amount,
    Cap,
    CapStanding,
    Counter,
    CounterId,
    Crossing,
    Grant,
    Refusal,
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
from runtime.store.spending.caps import drop_cap, put_cap
from runtime.store.spending.counters import (
    Counters,
    MissingCounters,
    keep_counters,
    newest_counters,
)
from runtime.store.spending.forecast import forecast_of
from runtime.store.spending.idle_counters import drop_idle_counters
from runtime.store.spending.known_caps import KnownCaps
from runtime.store.spending.reservations import (
    ReservationRequest,
    drop_expired,
    drop_reservations,
    has_expired,
    put_reservations,
)
from runtime.store.sql.database import (
    Turn,
    reading,
    take_turns,
    writing,
    writing_directly,
)
from runtime.store.sql.patience import REPORT_SECONDS
from runtime.store.sql.prepared import Direct

_log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""How often counters that nobody will count on any more are looked for."""

SESSION_KEPT_SECONDS = 90 * 86_400.0
"""How long after its last request a session is remembered by budgets in total, by default."""


class Observer(Protocol):
    """Is called with warnings, in the thread that wrote what led to them."""

    def warned(self, cap: Cap, share: int) -> None:
        """Take note that spending has passed ``share`` percent of ``cap``.

        Of all processes one alone gets the call, once in each window.
        """
        ...


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
        self._known = KnownCaps(engine, clock)
        self._counters = Counters(engine)
        self._sessions_kept_s = sessions_kept_s
        self._idle_at = float("-inf")
        self._engine = engine
        self._clock = clock
        self._observers = observers

    # -- caps -------------------------------------------------------------------------------------

    @property
    def skew(self) -> float:
        """By how many seconds the store's clock was ahead of this process's when caps were read last."""
        return self._known.skew

    @property
    def known(self) -> list[Cap] | None:
        """All caps if they have been read lately; else None, and ``caps`` reads them."""
        return self._known.known

    def caps(self) -> list[Cap]:
        """Return all caps, as they were at most ``FRESH_SECONDS`` ago, and not before ``forget``."""
        return self._known.caps()

    def now(self) -> float:
        """Return the time by the store's clock, in seconds since the Unix epoch."""
        return self._known.now()

    def counting(self, tag: HopTag) -> list[Cap]:
        """Return those of the caps last read that count what is spent under ``tag``."""
        return self._known.counting(tag)

    def forget(self) -> None:
        """Have the caps read again: what is being read now may be out of date already."""
        self._known.forget()

    def set(self, cap: Cap, by: str | None = None) -> None:
        """Add a cap; one of the same tenant, key, unit and window is replaced, and goes on counting.

        ``by`` is who wants it, for the audit entry, which is written with the cap or not at all; else None.
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

    def standing(self) -> list[CapStanding]:
        """Return how every cap's newest window stands: of its subjects, the one that has taken most of it."""
        with reading(self._engine, REPORT_SECONDS) as connection:
            stand = newest_counters(connection)
        return [CapStanding(cap, *stand.get(cap.id, (Counter(), "", 0))) for cap in self.caps()]

    def forecast(self) -> list[Forecast]:
        """Return for every cap when it runs out at the present rate, if it does within its window."""
        caps, at = self.caps(), self.now()
        with reading(self._engine, REPORT_SECONDS) as connection:
            return [forecast_of(connection, cap, at) for cap in caps]

    # -- reservations -----------------------------------------------------------------------------

    def reserve(self, requests: Sequence[ReservationRequest]) -> list[Grant | Refusal]:
        """Let each of ``requests`` begin, in their order, or say which cap it does not fit into."""
        while True:
            try:
                return self._try_to_reserve(requests)
            except MissingCounters as missing:
                self.make(missing.counters)

    def _try_to_reserve(self, requests: Sequence[ReservationRequest]) -> list[Grant | Refusal]:
        caps = {claim.counter: claim.cap for request in requests for claim in request.claims}
        with writing_directly(self._engine) as direct:
            counters = self._counters.hold(direct, caps, (), self._used())
            changed: dict[CounterId, Counter] = {}
            begun: list[ReservationRequest] = []
            answers: list[Grant | Refusal] = []
            for request in requests:
                refused = refusal(request.claims, counters, request.at)
                if refused is None:
                    begun.append(request)
                    changed |= taken(request.claims, counters)
                    counters |= changed
                answers.append(refused or _standing(request, counters))
            crossed = crossings(caps, changed)
            keep_counters(
                direct, warned(changed, crossed), max((request.at for request in begun), default=0.0)
            )
            put_reservations(direct, begun)
        self.warn(crossed)
        return answers

    def make(self, counters: Sequence[CounterId]) -> None:
        """Make counters, in a transaction that takes nothing else."""
        with writing_directly(self._engine) as direct:
            self._counters.make(direct, counters, self._used())

    def _used(self) -> float:
        """Return when a counter is used that is used now, by the store's clock as far as it is known."""
        return self._clock.wall() + self.skew

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
        count = 0
        while True:
            with reading(self._engine) as connection:
                if not has_expired(connection, until):
                    return count
            with writing_directly(self._engine) as direct:
                # Alone: who settles takes reservations in another order, and each would wait for the other.
                take_turns(direct, Turn.LEDGER, alone=True)
                gone, released = drop_expired(direct, until)
                held = self._counters.hold(direct, (), released, self._used())
                keep_counters(direct, settled(held, {}, released), until)
            count += gone

    # -- spending ---------------------------------------------------------------------------------

    def settle(
        self, direct: Direct, spent: Iterable[tuple[HopTag, Amount]], ended: Sequence[str]
    ) -> list[Crossing]:
        """Count hops as spent in all caps last read that count them, and release what ``ended`` calls hold.

        It happens within the caller's transaction. Returns what to ``warn`` of once that is committed. Raises
        MissingCounters: roll back, ``make`` them, and begin again.
        """
        sums, cap_of = self._charges(spent)
        # Before the counters, as everybody takes them who takes both: else two would wait for each other.
        released = drop_reservations(direct, ended)
        changed = settled(self._counters.hold(direct, sums, released, self._used()), sums, released)
        crossed = crossings(cap_of, {counter: changed[counter] for counter in sums})
        keep_counters(direct, warned(changed, crossed), self._used())
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

    def warn(self, crossed: Iterable[Crossing]) -> None:
        """Warn of shares that have been passed, once that is committed."""
        for each in crossed:
            _log.warning("%s", each)
            for observer in self._observers:
                observer.warned(each.cap, each.share)


def _standing(request: ReservationRequest, counters: Mapping[CounterId, Counter]) -> Grant:
    return Grant(request.at, [(claim.cap, counters[claim.counter]) for claim in request.claims])
