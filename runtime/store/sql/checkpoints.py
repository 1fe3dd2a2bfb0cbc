"""Checkpoints of SQLite's write-ahead log: what is committed there is copied into the database's file.

SQLite makes one within the commit that finds the log long, and the disk has to have both files before it is
done. Whoever's turn that is waits for it, and so do all behind. Here they are made in a thread of their own,
beside transactions, which only append to the log meanwhile.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing

_log = logging.getLogger(__name__)

THREAD = "checkpoint"

AFTER = 1000
"""Transactions between two checkpoints, give or take: some 25 MB of log."""

AT_LATEST = 16_384
"""Pages of the log after which a commit makes the checkpoint all the same: 64 MB."""

_PASSES = 4
"""The first copies much, and is overtaken by writers meanwhile; the next ones find little to copy.

The log begins anew only with a transaction that comes when all is copied.
"""


class Checkpoints:
    """Makes the checkpoints of one process for the database at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting = 0
        self._running = threading.Lock()

    def count(self) -> None:
        """Take note that a transaction has ended; it may be in the log."""
        self._waiting += 1
        if self._waiting >= AFTER and self._running.acquire(blocking=False):
            self._waiting = 0
            try:
                threading.Thread(target=self._run, name=THREAD).start()
            except RuntimeError as error:
                # There are no more threads. What was committed is committed, and the next one may start.
                self._running.release()
                _log.warning("no checkpoint of the store at %s: %s", self._path, error)

    def _run(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                before = None
                for _ in range(_PASSES):
                    found = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    if found == before:
                        break
                    before = found
        except sqlite3.Error as error:  # nothing is lost: the log only gets longer
            _log.warning("no checkpoint of the store at %s: %s", self._path, error)
        finally:
            self._running.release()
