"""What a database's error means for whoever waits for its answer, and who is told of it."""

from __future__ import annotations

import logging
import threading
from time import monotonic

from runtime.errors import StoreUnavailable

_log = logging.getLogger(__name__)

_QUIET_SECONDS = 5.0
"""How often the log repeats what the database said: every request of an outage gets the same."""

_READ_ONLY = "25006"
_DISK_FULL = ("53100", "58030")


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return the error that stands for ``error``.

    Its text goes to clients and says nothing of where the database is; ``detail`` is the database's own
    word, for health and the log.
    """
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    _tell(said)
    return StoreUnavailable(f"the store {_trouble(error, said)}", detail=said)


def _trouble(error: BaseException, said: str) -> str:
    state = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    if state == _READ_ONLY or "readonly database" in said:
        return "is read-only"
    if state in _DISK_FULL or "disk is full" in said or "disk I/O error" in said:
        return "cannot write to its disk"
    return "does not answer"


class _Told:
    """When the log was told last, in this process."""

    at = float("-inf")
    turn = threading.Lock()


def _tell(said: str) -> None:
    with _Told.turn:
        if monotonic() - _Told.at < _QUIET_SECONDS:
            return
        _Told.at = monotonic()
    _log.warning("the store: %s", said)
