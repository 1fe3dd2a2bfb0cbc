"""The end of a hop, as one value for all who count, report or charge it."""

from __future__ import annotations

from typing import NamedTuple

from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import HopRecord
from runtime.errors import InterlockError, RequestError


class HopEnded(NamedTuple):
    """A hop that has ended, however it did."""

    call: str
    """The call's id in its walk."""
    tag: HopTag
    """That of the attempt that counts; one before it, if there was, has a row of its own."""
    outcome: Outcome
    record: HopRecord
    at: float
    """When it ended, by the clock that measures."""
    error: InterlockError | None = None
    """What ended it early, unless its client did."""

    @property
    def failed(self) -> bool:
        """Say whether it counts as a fault: what its client has sent, or has ended, does not."""
        return self.error is not None and not isinstance(self.error, RequestError)

    @property
    def row(self) -> LedgerRow:
        """The hop in the ledger."""
        times = self.record.queue_ms, self.record.ttft_ms, self.record.duration_ms
        return LedgerRow(self.tag, self.record.usage, self.outcome, *times)
