"""What a database's error means for whoever waits for its answer, and how it is logged."""

from __future__ import annotations

import logging
import threading
from time import monotonic

from runtime.errors import StoreUnavailable

_log = logging.getLogger(__name__)

_QUIET_SECONDS = 5.0
"""How often the log repeats an error of the database: every request of an outage meets the same."""

_READ_ONLY = "25006"
_DISK_FULL = ("53100", "58030")


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return the error that stands for ``error``.

    Its message goes to clients and does not name the database's address; ``detail`` is the database's own
    message, for health and the log.
    """
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    _log_outage(text)
    return StoreUnavailable(f"the store {_trouble(error, text)}", detail=text)


def _trouble(error: BaseException, text: str) -> str:
    state = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    if state == _READ_ONLY or "readonly database" in text:
        return "is read-only"
    if state in _DISK_FULL or "disk is full" in text or "disk I/O error" in text:
        return "cannot write to its disk"
    return "does not answer"


class _LastLogged:
    """When an outage was logged last, in this process."""

    at = float("-inf")
    turn = threading.Lock()


def _log_outage(text: str) -> None:
    with _LastLogged.turn:
        if monotonic() - _LastLogged.at < _QUIET_SECONDS:
            return
        _LastLogged.at = monotonic()
    _log.warning("the store: %s", text)
