"""Python's collector in a process that lives long and was big from the start."""

from __future__ import annotations

import gc

_YOUNG = 500_000
"""How many more objects than before there may be until the collector looks at the new ones.

By default it is 700, to which a few requests that begin together come, and all of those are alive: what a
request leaves behind is hardly ever in a cycle. A stream is 370 objects, Serve's and Starlette's with it: at
50,000 a look at the first 140 streams, or at the next, still kept all waiting for some fifty milliseconds.
Cycles that nobody looks at meanwhile take a hundred megabytes at most.
"""


def leave_startup_alone() -> None:
    """Take what has been imported and built so far out of the collector's sight, and have it look seldom.

    It looks for old garbage only once a quarter of all old objects are new. Ray, Serve and FastAPI are so
    many that requests' leftovers gathered for minutes, and the pass that ended it looked at all of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
