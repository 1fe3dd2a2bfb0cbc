"""What each call to the manager, answered or not, shows of whether this gateway is up to date."""

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
        """Return what time it is, for ``asked_at``: it is taken before the manager is asked."""
        return self._routing.moment()

    def answered(self, newest: TableStamp, held: TableStamp, asked_at: Moment) -> None:
        """Note which table is the newest, or was at some time since ``asked_at``."""
        routing, fenced = self._routing, self.fenced
        routing.standing = routing.standing.answered(newest, held, asked_at, routing.moment())
        if self.fenced and not fenced:
            _log.error("%s is not followed: not ready any more", newest)

    def unanswered(self, error: Unavailable, asked_at: Moment) -> None:
        """Note why a call was not answered."""
        _log.info("the manager is away: %s", error)
        if isinstance(error, NoManager):
            routing = self._routing
            routing.standing = routing.standing.alone(asked_at, routing.moment())

    def followed(self, stamp: TableStamp, asked_at: Moment) -> None:
        """Note that this gateway routes by a table that it asked for at ``asked_at``."""
        self._routing.standing = self._routing.standing.installed(stamp, asked_at)
