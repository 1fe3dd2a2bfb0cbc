"""Keeping the store's size bounded: finished periods are summed up, and expired rows are deleted."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from runtime.errors import StoreUnavailable

_log = logging.getLogger(__name__)

PERIOD_SECONDS = 60.0


class RetentionPort(Protocol):
    """What keeps the store's size bounded."""

    async def keep(self) -> None:
        """Make the sums that are due, and delete what is due. Raises StoreUnavailable."""
        ...


async def retain(store: RetentionPort) -> None:
    """Do what is due, time and again, until cancelled."""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        try:
            await store.keep()
        except StoreUnavailable as error:
            _log.warning("could not sum up the ledger; trying again: %s", error)


class NoRetention:
    """Keeps everything."""

    async def keep(self) -> None:
        """Do nothing."""
