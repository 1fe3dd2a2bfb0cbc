"""What each question to the manager, answered or not, says of how the manager sees this gateway."""

from __future__ import annotations

import logging

from runtime.core.swap.routes import TableStamp
from runtime.core.swap.standing import Moment
from runtime.errors import NoManager, Unavailable
from runtime.traffic.routing import Routing

_log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Pause before a manager that was away is asked again."""


class Contact:
    """Keeps the standing by which ``routing`` refuses requests once this gateway may be out of date."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    @property
    def fenced(self) -> bool:
        """Say whether this gateway has been behind for so long that it takes no requests any more."""
        return self._routing.standing.lags(self.moment())

    def moment(self) -> Moment:
        """Return what time it is: when a question is ``asked``."""
        return self._routing.moment()

    def told(self, newest: TableStamp, held: TableStamp, asked: Moment) -> None:
        """Take note of what the newest table is, or was when this gateway ``asked`` or later."""
        routing, fenced = self._routing, self.fenced
        routing.standing = routing.standing.told(newest, held, asked, routing.moment())
        if self.fenced and not fenced:
            _log.error("%s is not followed: not ready any more", newest)

    def not_told(self, error: Unavailable, asked: Moment) -> None:
        """Take note of why nothing was answered."""
        _log.info("the manager is away: %s", error)
        if isinstance(error, NoManager):
            routing = self._routing
            routing.standing = routing.standing.alone(asked, routing.moment())

    def followed(self, asked: Moment) -> None:
        """Take note that this gateway routes by the table that it ``asked`` for then."""
        self._routing.standing = self._routing.standing.installed(asked)
