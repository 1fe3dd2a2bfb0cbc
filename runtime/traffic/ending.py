"""How one request ends, and when, as its client saw it: counted once, when it is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.clock import Clock
from runtime.core.metering.latency import Latency, latency_of
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.metering.outcomes import RequestOutcome, outcome_of
from runtime.core.metering.recent import Mark, Observed, ending
from runtime.core.metering.usage import HopRecord, total
from runtime.core.walk.chain import Chain
from runtime.traffic.meter import Meter
from runtime.walking.context import RequestContext


class RequestEnd:
    """What the end of a request is counted by. ``tag`` has what all hops of the request share."""

    def __init__(
        self, clock: Clock, meter: Meter, chain: Chain, tag: HopTag, context: RequestContext
    ) -> None:
        self._clock = clock
        self._meter = meter
        self._chain = chain
        self._tag = tag
        self._context = context
        self._begun = clock.now()
        self._ended: float | None = None
        self._error: Exception | None = None
        self._outcome: RequestOutcome | None = None
        """How it ends unless something else happens; None until it has been started."""

    def started(self) -> None:
        """Note that its chain is walked from now on: whoever leaves before the answer's end cancels it."""
        self._outcome = RequestOutcome.CANCELLED

    def answered(self) -> None:
        """Note that all of its answer has come."""
        self._outcome = RequestOutcome.OK

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what ends the request in this block, if it is an error."""
        try:
            yield
        except Exception as error:
            self._error, self._outcome = error, outcome_of(error)
            self._context.span.failed(error)
            raise

    def latency(self, hops: Sequence[HopRecord]) -> Latency:
        """Return where the time has gone until now, which counts as the answer's end."""
        self._ended = self._clock.now()
        return latency_of(hops, self._since_arrival(self._begun), self._since_arrival(self._ended))

    def _since_arrival(self, stamp: float) -> float:
        return (stamp - self._context.arrived) * 1000.0

    def count(self, hops: Sequence[HopRecord]) -> None:
        """Count the request, which took ``hops``; one that was not started is admission's to count."""
        if self._outcome is None:
            return
        generated = total(hop.usage for hop in hops if hop.step in self._chain.generating)
        self._meter.record_request(self._tag.release, generated)
        ended = self._clock.now() if self._ended is None else self._ended
        took = ended - self._context.arrived
        own = took - sum(hop.duration_ms for hop in hops) / 1000.0
        labels = self._tag.chain, self._tag.release
        self._meter.metrics.request(*labels, self._outcome, took, max(0.0, own))
        self._mark(ended, took)

    def _mark(self, ended: float, took: float) -> None:
        """Count it among what has been seen lately; not a copy, whose answer nobody waits for."""
        if self._tag.purpose != Purpose.LIVE:
            return
        answered, objective = self._outcome is RequestOutcome.OK, self._chain.latency_objective
        observed = ending(self._error, answered=answered, took=took, objective=objective)
        if observed is not None:
            refused = self._tag.tenant if observed is Observed.REFUSED else ""
            self._meter.recent.add(ended, Mark(observed, self._tag.release, self._tag.chain, refused))
