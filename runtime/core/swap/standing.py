"""Whether a gateway may still route by its table: as long as the manager counts on it, and not longer.

The manager takes a gateway that has not reported for a while as gone, and one that has not followed a new
table for a while as out of readiness; then engines of the old table may sleep and go. A gateway cannot know
which of its reports arrived last: it may have stood still. But it knows when it sent its last request that
was answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from runtime.core.swap.routes import TableStamp

BEHIND_SECONDS = 5.0
"""How long a gateway may route by a table that is no longer the newest; less than the manager waits."""


class Moment(NamedTuple):
    """The same moment on two clocks: the monotonic one stands still while a machine is suspended."""

    now: float
    wall: float

    def since(self, earlier: Moment) -> float:
        """Return how many seconds there may be between the two."""
        return max(self.now - earlier.now, self.wall - earlier.wall)


NEVER = Moment(float("-inf"), float("-inf"))
NONE_YET = TableStamp(0, -1)


@dataclass(frozen=True)
class Standing:
    """What a gateway knows of how the manager sees it: in contact, behind, or gone."""

    silence_s: float
    """After how many seconds without a report the manager takes it as gone."""
    contact: Moment = NEVER
    """When it sent its last answered request, which the manager received then or later."""
    newest: TableStamp = NONE_YET
    """The newest table that it knows of."""
    behind: Moment | None = None
    """Since when it knows of a table that it does not route by yet."""

    def fault(self, at: Moment) -> str:
        """Return why it may not route by its table; nothing if it may."""
        if at.since(self.contact) > self.silence_s:
            return (
                f"this gateway has not reached the manager for {self.silence_s:g} s, and may be out of date"
            )
        if self.lags(at):
            return f"this gateway has not reached the live release's engines for {BEHIND_SECONDS:g} s"
        return ""

    def lags(self, at: Moment) -> bool:
        """Say whether it has known of a newer table for so long that it is out of readiness."""
        return self.behind is not None and at.since(self.behind) > BEHIND_SECONDS

    def answered(self, newest: TableStamp, held: TableStamp, sent: Moment, at: Moment) -> Standing:
        """Return the standing once a request of ``sent`` was answered at ``at`` with the newest table.

        Version -1, of whatever epoch, says that the manager has no table yet; an answer of an earlier epoch
        comes from a manager that has been replaced.
        While it was out of date anything may have been decided: then only the newest table helps.
        """
        if newest.epoch < held.epoch and newest.version >= 0:
            return self
        if newest.version >= 0 and newest <= held:
            return replace(self, contact=max(sent, self.contact), behind=None)
        behind = self.behind or (at if newest.version >= 0 else None)
        known = max(newest, self.newest) if newest.version >= 0 else self.newest
        return replace(self, behind=behind, newest=known).alone(sent, at)

    def alone(self, sent: Moment, at: Moment) -> Standing:
        """Return the standing once there was found to be no manager, or none with a table.

        A new manager waits as long for every gateway's report before it decides.
        """
        return self if self.fault(at) else replace(self, contact=max(sent, self.contact))

    def installed(self, stamp: TableStamp, sent: Moment) -> Standing:
        """Return the standing once it routes by a table that it requested at ``sent``.

        Preparing may have taken so long that a newer table is known: it is behind that one as before.
        """
        behind = None if stamp >= self.newest else self.behind
        return replace(self, contact=max(sent, self.contact), behind=behind)
