"""The database's budgets, as requests ask them."""

from __future__ import annotations

from concurrent.futures import Executor

from runtime.core.budgets.budget import Cap, Refusal, Standing
from runtime.core.metering.ledger import HopTag
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.reservations import ReservationRequest
from runtime.traffic.batches import Batches


class StoredBudgets:
    """The database's budgets, called in a thread; requests that come together are reserved together."""

    def __init__(self, budgets: Budgets, thread: Executor) -> None:
        self._budgets = budgets
        self._caps: Batches[None, list[Cap]] = Batches(thread, lambda asked: [budgets.caps()] * len(asked))
        self._reserving = Batches(thread, budgets.reserve)
        self._met: set[str] = set()
        """Keys that have asked before. A new one's caps may be newer than those that are known here."""

    @property
    def skew(self) -> float:
        """By how many seconds the store's clock is ahead of this process's, as of its last answer."""
        return self._budgets.skew

    async def caps(self, tag: HopTag) -> list[Cap]:
        """Return the caps that count spending under ``tag``."""
        if tag.key not in self._met:
            self._budgets.forget()
        if self._budgets.known is None:
            await self._caps.put(None)
        self._met.add(tag.key)
        return self._budgets.counting(tag)

    async def reserve(self, wish: ReservationRequest) -> Standing | Refusal:
        """Let a request begin, or say which cap it does not fit into."""
        return await self._reserving.put(wish)
