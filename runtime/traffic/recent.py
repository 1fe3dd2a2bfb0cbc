"""Counts over a trailing window: what is older has been subtracted again."""

from __future__ import annotations

from collections import Counter, deque

from runtime.core.metering.recent import OTHERS, WINDOW_SECONDS, Mark, Observed

SLOT_SECONDS = 10.0
"""What was counted within so long leaves the window together: memory is bounded, whatever the load."""

MOST_TENANTS = 100
"""How many tenants are counted one by one; a report goes out every second and must stay small."""


class RecentCounts:
    """Sums of slots. Counting and forgetting cost the same at any load; ``at`` is the gateway's clock."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, Counter[Mark]]] = deque()
        self._total: Counter[Mark] = Counter()

    def add(self, at: float, mark: Mark) -> None:
        """Count ``mark`` once."""
        self._expire(at)
        if mark.observed is Observed.REFUSED and mark not in self._total and self._is_full():
            mark = mark._replace(detail=OTHERS)
        if not self._slots or at - self._slots[-1][0] >= SLOT_SECONDS:
            self._slots.append((at, Counter()))
        self._slots[-1][1][mark] += 1
        self._total[mark] += 1

    def counts(self, at: float) -> dict[Mark, int]:
        """Return what was seen within the window, to the length of one slot."""
        self._expire(at)
        return dict(self._total)

    def _expire(self, at: float) -> None:
        while self._slots and at - self._slots[0][0] > WINDOW_SECONDS:
            _, gone = self._slots.popleft()
            self._total.subtract(gone)
            for mark in gone:
                if not self._total[mark]:
                    del self._total[mark]

    def _is_full(self) -> bool:
        return sum(mark.observed is Observed.REFUSED for mark in self._total) >= MOST_TENANTS
