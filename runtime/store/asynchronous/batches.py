"""Several calls made one: what comes while one runs goes into the next one together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextvars import Context
from typing import Generic, TypeVar

from runtime.store.asynchronous.threads import in_thread

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batches(Generic[_Item, _Result]):
    """Gathers items for ``work``, which takes a list and returns a result for each, in its order.

    Alone, an item waits for one call; under load, for at most two, however many others there are. An item
    whose caller has gone before its call began is left out. Once it has begun, what the caller puts
    afterwards into batches of the same ``thread``, which must be one thread, is worked on later.
    """

    def __init__(self, thread: Executor | None, work: Callable[[list[_Item]], Sequence[_Result]]) -> None:
        self._thread = thread
        self._work = work
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._working: asyncio.Task[None] | None = None

    async def put(self, item: _Item) -> _Result:
        """Return the result for ``item``. Raises what ``work`` raised."""
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._working is None:
            # In no request's context: it goes on for others, long after that one's end.
            self._working = asyncio.create_task(self._run(), context=Context())
        return await done

    async def _run(self) -> None:
        while self._waiting:
            # Whoever has gone may have undone already what would be done now, and nobody would undo it again.
            batch = [(item, done) for item, done in self._waiting if not done.done()]
            self._waiting = []
            if batch:
                await self._one(batch)
        self._working = None

    async def _one(self, batch: list[tuple[_Item, asyncio.Future[_Result]]]) -> None:
        try:
            items = [item for item, _ in batch]
            results = await in_thread(self._thread, self._work, items)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is each waiting caller's
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)

    async def close(self) -> None:
        """Return once nothing runs any more."""
        if self._working is not None:
            await self._working
