"""Python's collector in a process that lives long and was big from the start."""

from __future__ import annotations

import gc


def leave_startup_alone() -> None:
    """Take what has been imported and built so far out of the collector's sight.

    It looks for old garbage only once a quarter of all old objects are new. Ray, Serve and FastAPI are so
    many that requests' leftovers gathered for minutes, and the pass that ended it looked at all of them.
    """
    gc.collect()
    gc.freeze()
