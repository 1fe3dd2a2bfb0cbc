"""The API keys."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from runtime.core.budgets.budget import Cap
from runtime.core.requests.keys import ApiKey
from runtime.core.views.audit import AuditEntry
from runtime.store.asynchronous.threads import in_thread
from runtime.store.keys import KeyStore


class AsyncKeys:
    """The keys. Every call may raise StoreUnavailable."""

    def __init__(self, keys: KeyStore, thread: Executor | None = None) -> None:
        self._keys = keys
        self._thread = thread

    async def create(self, key: ApiKey, entry: AuditEntry, caps: Sequence[Cap] = ()) -> None:
        """Keep a new key, its audit entry and its caps, or nothing of it."""
        await in_thread(self._thread, self._keys.create, key, entry, caps)

    async def revoke(self, key_id: str, entry: AuditEntry) -> ApiKey | None:
        """End a key and return it; None if there is none with this id."""
        return await in_thread(self._thread, self._keys.revoke, key_id, entry)

    async def list(self) -> list[ApiKey]:
        """Return every key that ever was."""
        return await in_thread(self._thread, self._keys.list)

    async def find(self, digest: str) -> ApiKey | None:
        """Return the key whose secret has this digest, also a revoked one."""
        return await in_thread(self._thread, self._keys.find, digest)

    async def has_any(self) -> bool:
        """Say whether there is a key that is not revoked."""
        return await in_thread(self._thread, self._keys.has_any)
