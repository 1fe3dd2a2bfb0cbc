"""How a request ended, in the few words that it is counted by."""

from __future__ import annotations

from enum import StrEnum

from runtime.errors import (
    DeadlineExceeded,
    NoLiveRelease,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestError,
    StoreUnavailable,
)


class RequestOutcome(StrEnum):
    """Those that a hop can have, too, have its words (``core.metering.ledger.Outcome``)."""

    OK = "ok"
    CANCELLED = "cancelled"
    """The client went away."""
    DEADLINE = "deadline"
    """The chain's deadline passed."""
    ERROR = "error"
    """An engine failed, or Interlock did."""
    INVALID = "invalid"
    """What the client sent is wrong."""
    RATE_LIMITED = "rate_limited"
    """A limit had no room for it: come again."""
    INSUFFICIENT_QUOTA = "insufficient_quota"
    """A budget had no room for it."""
    UNAVAILABLE = "unavailable"
    """No release was live, too many waited, or the store did not answer."""


REFUSALS = frozenset({RequestOutcome.RATE_LIMITED, RequestOutcome.INSUFFICIENT_QUOTA})
"""Outcomes of requests that a budget or a limit had no room for."""


def outcome_of(error: BaseException) -> RequestOutcome:
    """Return how a request ended that ``error`` ended."""
    match error:
        case QuotaExhausted():
            return RequestOutcome.INSUFFICIENT_QUOTA
        case RateLimited():
            return RequestOutcome.RATE_LIMITED
        case DeadlineExceeded():
            return RequestOutcome.DEADLINE
        case NoLiveRelease() | Overloaded() | StoreUnavailable():
            return RequestOutcome.UNAVAILABLE
        case RequestError():
            return RequestOutcome.INVALID
        case Exception():
            return RequestOutcome.ERROR
    return RequestOutcome.CANCELLED  # what is no Exception comes from outside: a task is stopped so
