"""Which manager works on the store."""

from __future__ import annotations

from concurrent.futures import Executor

from runtime.core.swap.holder import Holder
from runtime.store.asynchronous.threads import in_thread
from runtime.store.holder import Held, HolderRow


class AsyncHolderRow:
    """The row that says which. Every call may raise StoreUnavailable."""

    def __init__(self, row: HolderRow, thread: Executor | None = None) -> None:
        self._row = row
        self._thread = thread

    async def read(self) -> Held:
        """Return the row as it is now."""
        return await in_thread(self._thread, self._row.read)

    async def take(self, own: Holder, seen: Held) -> bool:
        """Put ``own`` in the place of what was ``seen``; False if the row has changed since."""
        return await in_thread(self._thread, self._row.take, own, seen)

    async def beat(self, own: Holder) -> bool:
        """Record that ``own`` is still alive; False if another has taken over."""
        return await in_thread(self._thread, self._row.beat, own)

    async def leave(self, own: Holder) -> None:
        """Record that nobody works on the store any more, unless another does already."""
        await in_thread(self._thread, self._row.leave, own)
