"""The keys as a gateway sees them: asynchronous, behind a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from runtime.core.budgets.budget import Cap
from runtime.core.requests.keys import ApiKey
from runtime.core.views.audit import AuditEntry
from runtime.store.keys import KeyStore


class Keys(Protocol):
    """Where keys are kept. Every call may raise StoreUnavailable."""

    async def create(self, key: ApiKey, entry: AuditEntry, caps: Sequence[Cap] = ()) -> None:
        """Keep a new key, its audit entry and its caps, or nothing of it."""
        ...

    async def revoke(self, key_id: str, entry: AuditEntry) -> ApiKey | None:
        """End a key and return it; None if there is none with this id."""
        ...

    async def list(self) -> list[ApiKey]:
        """Return every key that ever was."""
        ...

    async def find(self, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest, also a revoked one."""
        ...

    async def has_any(self) -> bool:
        """Say whether there is a key that is not revoked."""
        ...


class StoredKeys:
    """The database's keys; each call runs in a thread, for SQLAlchemy's calls block."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def create(self, key: ApiKey, entry: AuditEntry, caps: Sequence[Cap] = ()) -> None:
        """Keep a new key, its audit entry and its caps, or nothing of it."""
        await asyncio.to_thread(self._store.create, key, entry, caps)

    async def revoke(self, key_id: str, entry: AuditEntry) -> ApiKey | None:
        """End a key and return it."""
        return await asyncio.to_thread(self._store.revoke, key_id, entry)

    async def list(self) -> list[ApiKey]:
        """Return every key that ever was."""
        return await asyncio.to_thread(self._store.list)

    async def find(self, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest."""
        return await asyncio.to_thread(self._store.find, digest)

    async def has_any(self) -> bool:
        """Say whether there is a key that is not revoked."""
        return await asyncio.to_thread(self._store.has_any)
