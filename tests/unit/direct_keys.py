"""The real key store, called without threads, so that virtual time goes on around it."""

from __future__ import annotations

import asyncio

from runtime.store.keys import KeyStore
from tests.unit.fresh_store import fresh_store


class DirectKeys:
    """Keys in a database of this thread. ``asked`` counts the look-ups; each takes ``takes`` seconds."""

    def __init__(self, engine):
        self.engine = engine
        self.store = KeyStore(engine)
        self.asked = 0
        self.takes = 0.0
        self.error = None

    async def create(self, key, entry, caps=()):
        self.store.create(key, entry, caps)

    async def revoke(self, key_id, entry):
        return self.store.revoke(key_id, entry)

    async def list(self):
        return self.store.list()

    async def find(self, digest):
        return await self._look_up(self.store.find, digest)

    async def has_any(self):
        return await self._look_up(self.store.has_any)

    async def _look_up(self, ask, *arguments):
        self.asked += 1
        answer = ask(*arguments)
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return answer


def memory_keys():
    """An empty store in memory."""
    return DirectKeys(fresh_store())
