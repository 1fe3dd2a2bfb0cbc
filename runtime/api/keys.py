"""The keys as a gateway sees them: a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.core.budgets.budget import Cap
from runtime.core.requests.keys import ApiKey
from runtime.core.views.audit import AuditEntry


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
