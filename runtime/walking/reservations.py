"""What one request holds of its caller's budgets, from its worst case at the beginning to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Protocol

from runtime.clock import Clock
from runtime.core.budgets.budget import (
    OF_TOKENS,
    Amount,
    Cap,
    CapKind,
    Grant,
    Per,
    Refusal,
    Unit,
    Window,
    amount_text,
    claims,
)
from runtime.core.metering.ledger import HopTag
from runtime.errors import QuotaExhausted, RateLimited
from runtime.store.spending.reservations import ReservationRequest

GRACE_SECONDS = 30.0
"""How long after its chain's deadline a request's reservations expire: by then its gateway must have died."""

BUSY_SECONDS = 1.0
"""When to retry if too many requests are under way: nobody knows when one of them ends."""


class BudgetPort(Protocol):
    """The caps and their counters. Every call may raise StoreUnavailable."""

    @property
    def skew(self) -> float:
        """By how many seconds the store's clock, which windows go by, is ahead of this process's."""
        ...

    async def caps(self, tag: HopTag) -> list[Cap]:
        """Return the caps that count spending under ``tag``."""
        ...

    async def reserve(self, request: ReservationRequest) -> Grant | Refusal:
        """Let a request begin, or say which cap it does not fit into."""
        ...


class NoBudgets:
    """Nobody's spending is limited."""

    skew = 0.0

    async def caps(self, tag: HopTag) -> list[Cap]:  # noqa: ARG002 - the protocol's form
        """Return none."""
        return []

    async def reserve(self, request: ReservationRequest) -> Grant | Refusal:
        """Let everything begin."""
        return Grant(request.at, ())


class Reservations:
    """What one request has reserved. ``names`` are released with its last rows."""

    def __init__(self, budgets: BudgetPort, clock: Clock, tag: HopTag, deadline: float) -> None:
        self._budgets = budgets
        self._clock = clock
        self._tag = tag
        self._deadline = deadline
        self._caps: list[Cap] = []
        self._reserved = Amount()
        self._covering = asyncio.Lock()
        self._numbers = itertools.count()
        self.names: list[str] = []
        self.standing: Grant | None = None
        """How the caps stood just after the request had begun."""

    async def find_caps(self) -> None:
        """Find out which caps the request is under. Raises StoreUnavailable."""
        self._caps = await self._budgets.caps(self._tag)

    @property
    def counts_tokens(self) -> bool:
        """Say whether a cap counts tokens or their cost; only then must the worst case be known."""
        return any(cap.unit in OF_TOKENS for cap in self._caps)

    async def begin(self, worst: Amount) -> None:
        """Reserve ``worst``, and the request itself where requests are counted.

        Raises:
            RateLimited: a limit has no room in its window.
            QuotaExhausted: a budget has no room.

        """
        if self._caps:
            self.standing = await self._reserve(self._caps, worst)
            self._reserved = worst

    async def cover(self, amount: Amount) -> None:
        """Reserve what is missing for ``amount`` in all. Raises as ``begin`` does."""
        async with self._covering:  # calls beside each other would each reserve what the other does
            more = amount.beyond(self._reserved)
            counting = [cap for cap in self._caps if more.of(cap.unit)]
            if counting:
                await self._reserve(counting, more)
                self._reserved = self._reserved.plus(more)

    def leave(self) -> None:
        """Let what is reserved expire instead of being released: what was spent of it is not known yet."""
        self.names = []

    async def _reserve(self, caps: Sequence[Cap], amount: Amount) -> Grant:
        name, at = f"{self._tag.request}-{next(self._numbers)}", self._tag.admitted
        expires = at + self._deadline + GRACE_SECONDS
        # Before it is asked for: if this is cancelled, it may be reserved all the same.
        self.names.append(name)
        wanted = claims(caps, self._tag, amount, at)
        answer = await self._budgets.reserve(ReservationRequest(name, wanted, at, expires))
        if isinstance(answer, Refusal):
            self.names.remove(name)
            raise refused(answer, self._clock.wall() + self._budgets.skew)
        return answer


def refused(refusal: Refusal, now: float) -> RateLimited | QuotaExhausted:
    """Return the error that names the cap a client has reached, and when to retry."""
    cap, counter = refusal.cap, refusal.counter
    spent, reserved, limit, wanted = (
        amount_text(cap.unit, amount)
        for amount in (counter.spent, counter.reserved, cap.limit, refusal.wanted)
    )
    if cap.unit is Unit.CONCURRENT:
        reached = f"the {cap.kind.value} of concurrent requests of {_whose(cap)} does not allow it"
        message = f"{reached}: {reserved} of {limit} are under way"
    else:
        window = "in total" if cap.window is Window.TOTAL else f"per {cap.window.value}"
        reached = f"the {cap.kind.value} of {cap.unit.value} {window} of {_whose(cap)} does not allow it"
        message = (
            f"{reached}: {spent} spent and {reserved} reserved of {limit}, and the request may take {wanted}"
        )
    if cap.kind is CapKind.BUDGET or refusal.wanted > cap.limit:
        return QuotaExhausted(message, code="insufficient_quota")
    wait = BUSY_SECONDS if cap.unit is Unit.CONCURRENT else max(0.001, refusal.ends - now)
    return RateLimited(message, retry_after=wait)


def _whose(cap: Cap) -> str:
    """Return whose cap it is, in a client's words: it knows itself by its key."""
    tenant = f"tenant {cap.tenant}"
    match cap.per:
        case Per.TENANT:
            return f"this API key of {tenant}" if cap.key else tenant
        case Per.KEY:
            return f"each API key of {tenant}"
        case Per.SESSION | Per.REQUEST:
            return f"each {cap.per.value} of {tenant}"
