"""A hop as the ledger keeps it: who asked, where it ran, what it spent, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from runtime.core.metering.cost import Price, cost_of
from runtime.core.metering.usage import Usage
from runtime.errors import DeadlineExceeded

GROUPS = ("tenant", "key", "session", "chain", "step", "release", "engine", "purpose", "outcome", "day")
"""What usage can be summed up by."""

WARM_UPS = "(warm-ups)"
"""The name of warm-ups in sums by chain and by step."""


HOUR_SECONDS, DAY_SECONDS = 3_600, 86_400


def hour_of(at: float) -> int:
    """Return when the hour in UTC begins that holds ``at``, in seconds since the Unix epoch."""
    return int(at // HOUR_SECONDS) * HOUR_SECONDS


class Purpose(StrEnum):
    """What a hop was for."""

    LIVE = "live"
    WARMUP = "warmup"
    GATE = "gate"
    CANARY = "canary"
    SHADOW = "shadow"


class Outcome(StrEnum):
    """How a hop ended."""

    OK = "ok"
    CANCELLED = "cancelled"
    """The client went away, or the request had no more use for it."""
    DEADLINE = "deadline"
    """The chain's deadline passed."""
    ERROR = "error"
    """The engine refused, failed, or was lost."""
    ORPHANED = "orphaned"
    """The gateway that had asked for it died: only the engine reported it."""


def hop_outcome(error: Exception) -> Outcome:
    """Return the outcome of what ``error`` has ended."""
    return Outcome.DEADLINE if isinstance(error, DeadlineExceeded) else Outcome.ERROR


class HopTag(NamedTuple):
    """Who a hop is for. It goes to the engine with the call, so that the engine can report it, too."""

    hop: str
    """Its id, unique for ever. What is counted twice under one id counts once."""
    request: str = ""
    """The request's id, made by the gateway."""
    request_id: str = ""
    """``x-request-id``: the client's own id of it, which it may use more than once."""
    tenant: str = ""
    key: str = ""
    session: str = ""
    """Its tenant's own id of it: another tenant may have one of the same id."""
    chain: str = ""
    step: str = ""
    release: int = 0
    engine: str = ""
    """The engine's digest."""
    purpose: str = Purpose.LIVE.value
    started: float = 0.0
    """Seconds since the Unix epoch."""
    admitted: float = 0.0
    """When the whole request began: what it spends counts in the budgets' windows of that moment."""
    prompt_price: int = 0
    """What a token costs, in pico-units, by the hop's release: a later one may ask another price."""
    cached_price: int = 0
    completion_price: int = 0

    @classmethod
    def read(cls, values: Sequence[Any]) -> HopTag:
        """Return the tag that was sent as ``values``; a later Interlock's may have more fields."""
        return cls(*values[: len(cls._fields)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross processes as values: the other one's tag may have more of them, or fewer."""
        return HopTag.read, (self.plain(),)

    def plain(self) -> tuple[Any, ...]:
        """Return the tag as it is sent: no value of it is known by where its class is, which may change."""
        return tuple(self._replace(purpose=str(self.purpose)) if isinstance(self.purpose, Purpose) else self)

    @property
    def price(self) -> Price:
        """What its tokens cost."""
        return Price(self.prompt_price, self.cached_price, self.completion_price)

    def priced(self, price: Price) -> HopTag:
        """Return the tag of a hop whose tokens cost ``price``."""
        return self._replace(
            prompt_price=price.prompt, cached_price=price.cached, completion_price=price.completion
        )


class EndedHop(NamedTuple):
    """A hop that has ended in an engine's replica, by the engine's own count."""

    number: int
    """Counts the ended hops of one replica."""
    tag: HopTag
    usage: Usage
    seconds: float


class Batch(NamedTuple):
    """Ended hops of one replica, oldest first."""

    replica: str
    hops: list[EndedHop]


@dataclass(frozen=True)
class LedgerRow:
    """One hop in the ledger. A time that nobody measured is None."""

    tag: HopTag
    usage: Usage
    outcome: Outcome
    queue_ms: float | None
    ttft_ms: float | None
    duration_ms: float

    @property
    def at(self) -> float:
        """When its request began, or the hop itself if no request made it: it is summed up with that hour."""
        return self.tag.admitted or self.tag.started

    @property
    def cost(self) -> int:
        """What it has cost, in nano-units."""
        return cost_of(self.tag.price, self.usage)

    def as_row(self) -> dict[str, Any]:
        """Return the row's columns."""
        return {
            **self.tag._asdict(),
            "admitted": self.at,
            "prompt": self.usage.prompt,
            "cached": self.usage.cached,
            "completion": self.usage.completion,
            "reasoning": self.usage.reasoning,
            "cost": self.cost,
            "outcome": self.outcome.value,
            "queue_ms": self.queue_ms,
            "ttft_ms": self.ttft_ms,
            "duration_ms": self.duration_ms,
        }


def row_of(ended: EndedHop) -> LedgerRow:
    """Return the row of a hop that only its engine reported.

    A warm-up has no gateway that could report it, and has run to its end.
    """
    live = ended.tag.purpose == Purpose.LIVE
    outcome = Outcome.ORPHANED if live else Outcome.OK
    return LedgerRow(ended.tag, ended.usage, outcome, None, None, ended.seconds * 1000.0)
