"""Whether a gateway may still route by its table: as long as the manager counts on it, and not longer.

The manager takes a gateway that it has not heard for a while as gone, and one that has not followed a new
table for a while as out of readiness; then it lets engines of the old table sleep and go. A gateway cannot
know that it has not been heard: it may have stood still. But it knows when it asked last what was answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from runtime.core.swap.routes import TableStamp

BEHIND_SECONDS = 5.0
"""How long a gateway may route by a table that is no longer the newest; less than the manager waits."""


class Moment(NamedTuple):
    """The same moment on two clocks: the one that measures stands still while a machine is suspended."""

    now: float
    wall: float

    def since(self, earlier: Moment) -> float:
        """Return how many seconds there may be between the two."""
        return max(self.now - earlier.now, self.wall - earlier.wall)


NEVER = Moment(float("-inf"), float("-inf"))


@dataclass(frozen=True)
class Standing:
    """What a gateway knows of how the manager sees it."""

    silence_s: float
    """After how many seconds without a word the manager takes it as gone."""
    asked: Moment = NEVER
    """When it asked what was answered; the manager has heard it then or later."""
    behind: Moment | None = None
    """Since when it knows of a table that it does not route by yet."""

    def fault(self, at: Moment) -> str:
        """Return why it may not route by its table; nothing if it may."""
        if at.since(self.asked) > self.silence_s:
            return (
                f"this gateway has not reached the manager for {self.silence_s:g} s, and may be out of date"
            )
        if self.lags(at):
            return f"this gateway has not reached the live release's engines for {BEHIND_SECONDS:g} s"
        return ""

    def lags(self, at: Moment) -> bool:
        """Say whether it has known of a newer table for so long that it is out of readiness."""
        return self.behind is not None and at.since(self.behind) > BEHIND_SECONDS

    def told(self, newest: TableStamp, held: TableStamp, asked: Moment, at: Moment) -> Standing:
        """Return what it knows once it has been told at ``at`` of the newest table, having ``asked`` then.

        Version -1 says that the manager has no table yet, of whatever epoch; an earlier epoch of one that
        has, that its time is over.
        While it was out of date anything may have been decided: then only the newest table helps.
        """
        if newest.epoch < held.epoch and newest.version >= 0:
            return self
        if newest.version >= 0 and newest <= held:
            return replace(self, asked=max(asked, self.asked), behind=None)
        behind = self.behind or (at if newest.version >= 0 else None)
        return replace(self, behind=behind).alone(asked, at)

    def alone(self, asked: Moment, at: Moment) -> Standing:
        """Return what it knows once it has found that there was no manager, or none with a table.

        One that comes hears every gateway for as long, before it decides.
        """
        return self if self.fault(at) else replace(self, asked=max(asked, self.asked))

    def installed(self, asked: Moment) -> Standing:
        """Return what it knows once it routes by the table that it ``asked`` for then."""
        return replace(self, asked=max(asked, self.asked), behind=None)
