"""The real keys, asked for without threads, so that virtual time goes on around it."""

from __future__ import annotations

import asyncio

from runtime.store.asynchronous.keys import AsyncKeys
from runtime.store.keys import KeyStore
from runtime.testing.inline import InlineExecutor
from tests.unit.fresh_store import fresh_store


class DirectKeys(AsyncKeys):
    """Keys in a database of this thread. ``asked`` counts the look-ups; each takes ``takes`` seconds."""

    def __init__(self, engine):
        self.engine = engine
        self.store = KeyStore(engine)
        super().__init__(self.store, InlineExecutor())
        self.asked = 0
        self.takes = 0.0
        self.error = None

    async def find(self, digest):
        return await self._look_up(super().find(digest))

    async def has_any(self):
        return await self._look_up(super().has_any())

    async def _look_up(self, answer):
        self.asked += 1
        answer = await answer
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return answer


def memory_keys():
    """An empty store in memory."""
    return DirectKeys(fresh_store())
