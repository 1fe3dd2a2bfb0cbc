"""What gateways have seen lately: how hops and requests ended within a trailing window, as counts.

The ledger does not show it: it has a row per hop, and so nothing of a request that was refused before
its first, nor of the time that a request took besides its hops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from runtime.core.metering.outcomes import RequestOutcome, outcome_of
from runtime.errors import RateLimited

WINDOW_SECONDS = 300.0
"""How far back counts go: long enough for a share to mean something, short enough to show what is now."""

PATIENT_SECONDS = 60.0
"""OpenAI's clients obey ``Retry-After`` up to this. A longer wait counts as a refusal."""

OTHERS = "*"
"""Stands for the tenants beyond those that are counted one by one."""


class Observed(StrEnum):
    """What is counted. A hop or a request that its client has ended is counted as nothing."""

    HOP_DONE = "hop done"
    HOP_FAILED = "hop failed"
    """Its engine refused, failed or was lost, or the deadline passed in it."""
    HOP_OVERRAN = "hop overran"
    """It took longer than its share of the chain's latency budget; counted besides how it ended."""
    IN_TIME = "in time"
    LATE = "late"
    """Answered after its chain's latency objective, or cut off by its deadline."""
    FAILED = "failed"
    REFUSED = "refused"
    """A budget has no room for it, or a limit has none for longer than clients wait."""


class Mark(NamedTuple):
    """What is counted, and of which release and chain: 0 and nothing of a request that none has taken."""

    observed: Observed
    release: int
    chain: str
    detail: str = ""
    """The step of a hop, the tenant of a request that was refused."""


Counts = Mapping[Mark, int]
"""How often each was seen within the window; what was not is left out."""


def ending(error: BaseException | None, *, answered: bool, took: float, objective: float) -> Observed | None:
    """Return how a request has ended that took so many seconds; None if that was its client's doing.

    A client that leaves before the objective has passed may have lost interest; after it, it was kept
    waiting.
    """
    match outcome_of(error) if error is not None else RequestOutcome.OK:
        case RequestOutcome.RATE_LIMITED if isinstance(error, RateLimited):
            return Observed.REFUSED if error.retry_after > PATIENT_SECONDS else None
        case RequestOutcome.INSUFFICIENT_QUOTA:
            return Observed.REFUSED
        case RequestOutcome.INVALID:
            return None
        case RequestOutcome.DEADLINE:
            return Observed.LATE
        case RequestOutcome.ERROR | RequestOutcome.UNAVAILABLE:
            return Observed.FAILED
    if took > objective:
        return Observed.LATE
    return Observed.IN_TIME if answered else None


def summed(counted: Iterable[Counts]) -> Counter[Mark]:
    """Return the counts of several gateways as one."""
    result: Counter[Mark] = Counter()
    for counts in counted:
        result.update(counts)
    return result
