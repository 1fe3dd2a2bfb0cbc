"""Keeping the store's size bounded: sums are made of what is over, and what is older than it is kept goes."""

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
            _log.warning("the ledger is summed up later: %s", error)


class NoRetention:
    """Keeps everything."""

    async def keep(self) -> None:
        """Do nothing."""
