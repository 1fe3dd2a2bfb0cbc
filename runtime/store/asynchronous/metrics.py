"""The metrics of all processes."""

from __future__ import annotations

from concurrent.futures import Executor

from runtime.core.metering.series import Sums
from runtime.store.asynchronous.threads import in_thread
from runtime.store.metrics import MetricsStore


class AsyncMetrics:
    """The row. Every call may raise StoreUnavailable."""

    def __init__(self, metrics: MetricsStore, thread: Executor | None = None) -> None:
        self._metrics = metrics
        self._thread = thread

    async def load(self) -> Sums:
        """Return what was kept last."""
        return await in_thread(self._thread, self._metrics.load)

    async def save(self, sums: Sums) -> None:
        """Keep ``sums``. Raises Fenced if a newer manager has written already."""
        await in_thread(self._thread, self._metrics.save, sums)
