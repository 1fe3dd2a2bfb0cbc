"""Logging what releases wait for, seldom enough to be read."""

from __future__ import annotations

import logging
import re

from runtime.clock import Clock
from runtime.core.swap.release import CANDIDATE
from runtime.core.swap.state import ControlState, Release
from runtime.core.views.progress import elapsed_text, expected_state
from runtime.core.views.waiting import waits_for

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 10.0
"""How often a reason is logged again if only its numbers have changed."""

_NUMBER = re.compile(r"\d+")


class WaitLog:
    """Remembers what it logged of each release, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: dict[int, tuple[str, float]] = {}

    def log(self, state: ControlState) -> None:
        """Log each reason for waiting that is new. A release that failed waits for nothing."""
        self._logged = {r.number: self._logged[r.number] for r in state.unretired if r.number in self._logged}
        for release in state.unretired:
            number = release.number
            text = "" if release.reason else waits_for(state, release)
            if self._is_new(number, text):
                self._logged[number] = text, self._clock.now()
                if text:
                    _log.info("release %d waits for: %s%s", number, text, self._times(state, release))

    def _times(self, state: ControlState, release: Release) -> str:
        """Return for how long a candidate has been in its state, and for how long it should be."""
        if release.state not in CANDIDATE:
            return ""
        elapsed = self._clock.wall() - release.entered[release.state]
        return f"; {elapsed_text(elapsed, expected_state(state, release))}"

    def _is_new(self, number: int, text: str) -> bool:
        last, at = self._logged.get(number, ("", float("-inf")))
        if _kind(text) != _kind(last):
            return True
        return text != last and self._clock.now() - at >= AGAIN_SECONDS


def _kind(text: str) -> str:
    return _NUMBER.sub("", text)
