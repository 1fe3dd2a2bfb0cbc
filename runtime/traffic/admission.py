"""Where a request gets in: a lease on the live release, and the chain call that will hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from runtime.clock import Clock
from runtime.core.metering.outcomes import outcome_of
from runtime.core.metering.recent import Mark, Observed, ending
from runtime.core.swap.routes import RoutedRelease
from runtime.errors import DeadlineExceeded, NoLiveRelease, QuotaExhausted
from runtime.observe.tracing import UNTRACED, NoTracer, RequestSpan, TraceContext, Tracer
from runtime.traffic.chain import ChainCall, ChatRequest
from runtime.traffic.ledger import LedgerPort, NoLedger
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Ask, Routing
from runtime.walking.budgets import BudgetPort, NoBudgets


class Admission:
    """Lets requests in, one lease each."""

    def __init__(
        self,
        routing: Routing,
        clock: Clock,
        meter: Meter,
        ledger: LedgerPort | None = None,
        budgets: BudgetPort | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._routing = routing
        self._clock = clock
        self._meter = meter
        self._ledger = ledger or NoLedger()
        self._budgets = budgets or NoBudgets()
        self._tracer = tracer or NoTracer()

    def arrival(self) -> float:
        """Return the stamp that the latency of a request which arrives now counts from."""
        return self._clock.now()

    @contextmanager
    def traced(self, request_id: str, context: TraceContext, arrived: float) -> Iterator[RequestSpan]:
        """Trace a request that ``arrived`` then, from there to the end of this block."""
        span = self._tracer.request(request_id, context, arrived)
        try:
            yield span
            span.answered()
        except Exception as error:
            span.failed(error)
            raise
        finally:
            span.end()

    async def admit(
        self, request: ChatRequest, arrived: float | None = None, span: RequestSpan = UNTRACED
    ) -> ChainCall:
        """Take a lease for ``request``; the caller closes the call that comes back.

        ``arrived`` is the stamp that ``arrival`` gave for it; without one it has arrived just now. Its hops'
        spans come beneath ``span``.

        While the live release sleeps for a swap, the request waits here, for at most as long as its
        chain may take in all.

        Raises:
            NoLiveRelease: nothing serves yet.
            UnknownModel: the live release has no such chain.
            Overloaded: too many wait already.
            DeadlineExceeded: the models were not back in time.
            RateLimited, QuotaExhausted: what it may spend does not fit into the caller's limits, and its
                chain names no other that does (``degrade_to``).

        """
        try:
            return await self._admit(request, self.arrival() if arrived is None else arrived, span)
        except BaseException as error:
            self.turned_away(error, request)
            raise

    async def _admit(self, request: ChatRequest, arrived: float, span: RequestSpan) -> ChainCall:
        if self._routing.paused:
            await self._wait(request.model)
        try:
            return await self._begin(request, arrived, span)
        except QuotaExhausted as error:
            _, chain = self._routing.choose(Ask(request.model))
            if chain.degrade_to is None:
                raise
            self._meter.metrics.degraded(request.model, outcome_of(error))
            span.degraded(request.model)
            return await self._begin(replace(request, model=chain.degrade_to), arrived, span)

    def turned_away(self, error: BaseException, request: ChatRequest | None = None) -> None:
        """Count a request that got no further; the health tells of it unless that was its client's doing."""
        live, release, chain = self._routing.live, 0, ""
        # By names that the release declares only: a client may send any.
        if request is not None and live is not None and request.model in live.routed.chains:
            release, chain = live.number, request.model
        self._meter.metrics.turned_away(chain, release, outcome_of(error))
        what = ending(error, answered=False, took=0.0, objective=0.0)
        if what is None:
            return
        refused = request.caller.tenant if request is not None and what is Observed.REFUSED else ""
        self._meter.recent.add(self._clock.now(), Mark(what, release, chain, refused))

    async def _begin(self, request: ChatRequest, arrived: float, span: RequestSpan) -> ChainCall:
        """Take a lease and reserve what the request may spend, or neither."""
        lease = self._routing.lease(Ask(request.model))
        call = ChainCall(lease, request, self._clock, self._meter, self._ledger, self._budgets, arrived, span)
        try:
            call.check()
            await call.reserve()
        except BaseException:
            await call.aclose()
            raise
        return call

    async def _wait(self, model: str) -> None:
        _, chain = self._routing.choose(Ask(model))
        try:
            async with asyncio.timeout(chain.deadline):
                await self._routing.resumed()
        except TimeoutError as error:
            message = (
                f"the models were still being swapped after the chain's deadline of {chain.deadline:g} s"
            )
            raise DeadlineExceeded(message) from error

    @property
    def ready(self) -> bool:
        """Say whether a live release is held."""
        return self._routing.live is not None

    def live(self) -> RoutedRelease:
        """Return the live release. Raises NoLiveRelease."""
        if self._routing.live is None:
            raise NoLiveRelease("no release is live yet; see: interlock status", retry_after=5.0)
        return self._routing.live.routed
