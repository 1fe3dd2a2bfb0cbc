"""An engine's own count of tokens: of all calls together, and of each for as long as somebody may ask.

The ledger is held against it. A gateway that lost sight of a call (its client left, its deadline
passed) asks here what the call came to; of calls whose gateway has died, the manager learns here.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.clock import Clock
from runtime.core.metering.ledger import EndedHop, HopTag
from runtime.core.metering.usage import NOTHING, Usage
from runtime.engines.port import Body

KEPT = 100_000
"""How many ended hops are kept at most until the manager has taken them: some minutes under full load."""

TAG = "interlock_hop"
"""Member of a body that holds the ``HopTag``, as a plain list or tuple."""


class Count:
    """What one running call has spent so far."""

    def __init__(self, tag: HopTag) -> None:
        self.tag = tag
        self.ended = asyncio.Event()
        self._usage: Usage | Callable[[], Usage] = NOTHING

    @property
    def usage(self) -> Usage:
        """What has been spent; whoever runs the call sets it."""
        return self._usage if isinstance(self._usage, Usage) else self._usage()

    @usage.setter
    def usage(self, usage: Usage) -> None:
        self._usage = usage

    def follow(self, counted: Callable[[], Usage]) -> None:
        """Ask ``counted`` for what has been spent, until it is set."""
        self._usage = counted


class Tally:
    """Counts the calls of one replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._past = NOTHING
        self._running: dict[str, Count] = {}
        self._ended: OrderedDict[str, tuple[EndedHop, float]] = OrderedDict()
        self._number = 0

    @property
    def in_flight(self) -> int:
        """How many calls run."""
        return len(self._running)

    @property
    def usage(self) -> Usage:
        """Every token so far, those of running calls included."""
        total = self._past
        for count in self._running.values():
            total = total.plus(count.usage)
        return total

    @contextmanager
    def call(self, body: Body) -> Iterator[Count]:
        """Count a call; whoever runs it sets ``usage`` to what it has spent so far."""
        count = Count(tag_of(body))
        begun = self._clock.now()
        # An id that is running already (a caller that asks twice under one) must not hide the other.
        key = count.tag.hop if count.tag.hop not in self._running else uuid.uuid4().hex
        self._running[key] = count
        try:
            yield count
        finally:
            del self._running[key]
            self._end(count, self._clock.now() - begun)

    def _end(self, count: Count, seconds: float) -> None:
        self._past = self._past.plus(count.usage)
        self._number += 1
        ended = EndedHop(self._number, count.tag, count.usage, seconds)
        self._ended[count.tag.hop] = ended, self._clock.now()
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)
        count.ended.set()

    async def spent(self, hop: str) -> Usage | None:
        """Return what a call has spent, once it has ended; None if it never came here."""
        running = self._running.get(hop)
        if running is not None:
            await running.ended.wait()
            return running.usage
        known = self._ended.get(hop)
        return known[0].usage if known is not None else None

    def ended(self, after: int, age: float, limit: int) -> list[EndedHop]:
        """Return the oldest calls that ended ``age`` seconds ago or more; forget those up to ``after``."""
        while self._ended and next(iter(self._ended.values()))[0].number <= after:
            self._ended.popitem(last=False)
        latest = self._clock.now() - age
        found: list[EndedHop] = []
        for ended, at in self._ended.values():
            if at > latest or len(found) == limit:
                break
            found.append(ended)
        return found


def tag_of(body: Body) -> HopTag:
    """Return the tag in a body. A call without one, or with one that has no id, gets an id here."""
    tag = HopTag.read(body[TAG]) if body.get(TAG) else HopTag("")
    return tag if tag.hop else tag._replace(hop=uuid.uuid4().hex)
