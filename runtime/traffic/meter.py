"""Counting what hops spend, by engine, which steps take longer than their share, and how hops end.

The token counts are the engines' own, passed on with each hop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from runtime.core.metering.activity import Share
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.ledger import Outcome, Purpose
from runtime.core.metering.recent import Mark, Observed
from runtime.core.metering.usage import NOTHING, Usage, total
from runtime.observe.metrics import GatewayMetrics
from runtime.traffic.recent import RecentCounts

FIRST_REQUESTS = 100
"""How many requests after a cutover show whether its prefix cache was warm."""


class Meter:
    """Totals since the gateway started."""

    def __init__(self) -> None:
        self.metrics = GatewayMetrics()
        self._totals: dict[str, Usage] = {}
        self._gone = NOTHING
        self._first: dict[int, tuple[int, Usage]] = {}
        self._overruns: Counter[Share] = Counter()
        self.recent = RecentCounts()
        """How hops and requests have ended lately."""

    def hop_ended(self, ended: HopEnded) -> None:
        """Count a hop: by its engine, for Prometheus, and among what has been seen lately."""
        tag, usage = ended.tag, ended.record.usage
        self._totals[tag.engine] = self._totals.get(tag.engine, NOTHING).plus(usage)
        self.metrics.hop(tag, ended.outcome, ended.record)
        if ended.record.overrun_ms:
            self._overruns[tag.chain, tag.step] += 1
            self._see(Observed.HOP_OVERRAN, ended)
        if ended.outcome is Outcome.OK:
            self._see(Observed.HOP_DONE, ended)
        elif ended.failed:
            self._see(Observed.HOP_FAILED, ended)

    def _see(self, observed: Observed, ended: HopEnded) -> None:
        if ended.tag.purpose != Purpose.LIVE:
            return  # nobody waits for the answer of a copy: it does not count in health
        self.recent.add(ended.at, Mark(observed, ended.tag.release, ended.tag.chain, ended.tag.step))

    def record_request(self, release: int, usage: Usage) -> None:
        """Add what a request has generated, if it is one of the first that the release served here."""
        count, spent = self._first.get(release, (0, NOTHING))
        if count < FIRST_REQUESTS and usage.prompt:
            self._first[release] = count + 1, spent.plus(usage)

    @property
    def overruns(self) -> dict[Share, int]:
        """How many hops took longer than their share, by chain and step; those without any are left out."""
        return dict(self._overruns)

    @property
    def first_requests(self) -> dict[int, tuple[int, Usage]]:
        """How many of each release's first requests are counted, and what they spent."""
        return dict(self._first)

    def keep(
        self, releases: Collection[int], engines: Collection[str], shares: Collection[Share] = ()
    ) -> None:
        """Drop the first requests of all other releases; add what all other engines spent to one sum.

        ``shares`` are those that resident releases declare; the overruns of all others are dropped.
        """
        self._overruns = Counter({share: n for share, n in self._overruns.items() if share in shares})
        self._first = {number: first for number, first in self._first.items() if number in releases}
        gone = [engine for engine in self._totals if engine not in engines]
        self._gone = total([self._gone, *(self._totals.pop(engine) for engine in gone)])

    @property
    def totals(self) -> dict[str, Usage]:
        """Usage by engine digest; under an empty one, that of engines which are no longer resident."""
        return {**self._totals, "": self._gone}
