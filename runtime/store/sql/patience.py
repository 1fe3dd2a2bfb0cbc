"""How long a thread waits for the database: all its waits for one transaction together, whatever hangs.

A server whose host has frozen still takes what is sent, for its kernel does, and breaks no connection:
only who waits can notice it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

ANSWER_SECONDS = 5.0
"""How long a transaction may take on the way to an answer, from its connection to its commit."""

REPORT_SECONDS = 60.0
"""How long one may that reads much: what an operator asks for, or the whole journal."""

UPGRADE_SECONDS = 600.0
"""How long one may that brings the tables to a newer version, or waits for another process that does."""

_of_thread = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let all waits for the database that this thread makes in the block end after so many seconds.

    A block within another one does not have longer than that.
    """
    before: float | None = getattr(_of_thread, "until", None)
    until = monotonic() + seconds
    _of_thread.until = until if before is None else min(before, until)
    try:
        yield
    finally:
        _of_thread.until = before


def left() -> float:
    """Return how many seconds this thread may still wait; at least 0."""
    until: float | None = getattr(_of_thread, "until", None)
    return ANSWER_SECONDS if until is None else max(0.0, until - monotonic())
