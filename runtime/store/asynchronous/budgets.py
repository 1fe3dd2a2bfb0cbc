"""The budgets: as operators ask for them, and as requests do, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from runtime.core.budgets.budget import Cap, CapStanding, Grant, Refusal
from runtime.core.budgets.forecast import Forecast
from runtime.core.metering.ledger import HopTag
from runtime.store.asynchronous.batches import Batches
from runtime.store.asynchronous.threads import in_thread
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.reservations import ReservationRequest


class AsyncBudgets:
    """The budgets as an operator sees them. Every call may raise StoreUnavailable."""

    def __init__(self, budgets: Budgets, thread: Executor | None = None) -> None:
        self._budgets = budgets
        self._thread = thread

    async def list(self) -> list[CapStanding]:
        """Return every cap, and how it stands."""
        return await in_thread(self._thread, self._budgets.standing)

    async def set(self, cap: Cap, by: str) -> None:
        """Add a cap, or replace the one that caps the same; ``by`` is who wants it."""
        await in_thread(self._thread, self._budgets.set, cap, by)

    async def remove(self, cap: int, by: str) -> bool:
        """Remove a cap; say whether there was one. ``by`` is who wants it."""
        return await in_thread(self._thread, self._budgets.remove, cap, by)

    async def forecast(self) -> Sequence[Forecast]:
        """Return for every cap when it runs out at the present rate."""
        return await in_thread(self._thread, self._budgets.forecast)


class BatchedBudgets:
    """The budgets as requests see them: those that come together are reserved together.

    Every call may raise StoreUnavailable.
    """

    def __init__(self, budgets: Budgets, thread: Executor) -> None:
        self._budgets = budgets
        self._caps: Batches[None, list[Cap]] = Batches(
            thread, lambda waiting: [budgets.caps()] * len(waiting)
        )
        self._reserving = Batches(thread, budgets.reserve)
        self._seen: set[str] = set()
        """Keys that have made requests. The caps of a new key may be newer than those read last."""

    @property
    def skew(self) -> float:
        """By how many seconds the store's clock is ahead of this process's, as of its last answer."""
        return self._budgets.skew

    async def caps(self, tag: HopTag) -> list[Cap]:
        """Return the caps that count spending under ``tag``."""
        if tag.key not in self._seen:
            self._budgets.forget()
        if self._budgets.known is None:
            await self._caps.put(None)
        self._seen.add(tag.key)
        return self._budgets.counting(tag)

    async def reserve(self, request: ReservationRequest) -> Grant | Refusal:
        """Let a request begin, or say which cap it does not fit into."""
        return await self._reserving.put(request)
