"""What is reserved for requests under way, inside the transaction of whoever counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runtime.core.budgets.budget import Claim, CounterId
from runtime.store.sql.prepared import Direct, Prepared, PreparedAmong
from runtime.store.tables import RESERVATIONS

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
class ReservationRequest:
    """A request that wants to begin."""

    call: str
    """Its id, under which what is reserved is released."""
    claims: Sequence[Claim]
    at: float
    expires: float
    """When it expires, for its gateway must have died by then; seconds since the Unix epoch."""


def put_reservations(direct: Direct, begun: Sequence[ReservationRequest]) -> None:
    """Write what is reserved for requests that begin."""
    rows = [
        {
            **claim.counter._asdict(),
            "call": request.call,
            "amount": claim.reserved,
            "expires": request.expires,
        }
        for request in begun
        for claim in request.claims
        if claim.reserved
    ]
    _RESERVE.each(direct, rows)


def drop_reservations(direct: Direct, calls: Sequence[str]) -> dict[CounterId, int]:
    """Release what calls hold; return how much that was of each counter."""
    return _summed(_OF_CALLS.rows(direct, [(call,) for call in calls]))


def drop_expired(direct: Direct, until: float) -> tuple[int, dict[CounterId, int]]:
    """Release some of what expired before ``until``; return how many, and how much of each counter."""
    gone = _EXPIRED.rows(direct, until=until)
    return len(gone), _summed(gone)


def has_expired(connection: Connection, until: float) -> bool:
    """Say whether anything is reserved that expired before ``until``."""
    expired = sa.select(RESERVATIONS.c.call).where(RESERVATIONS.c.expires < until).limit(1)
    return connection.execute(expired).first() is not None


def _summed(gone: Iterable[Sequence[Any]]) -> dict[CounterId, int]:
    """Return how much deleted reservations had reserved of each counter."""
    sums: defaultdict[CounterId, int] = defaultdict(int)
    for *counter, amount in gone:
        sums[CounterId(*counter)] += amount
    return sums
