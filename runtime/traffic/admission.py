"""Where a request is admitted: it takes a lease on the live release, and becomes a chain call."""

from __future__ import annotations

import asyncio

from runtime.clock import Clock
from runtime.core.metering.outcomes import outcome_of
from runtime.core.metering.recent import Mark, Observed, ending
from runtime.core.requests.ask import Ask
from runtime.core.requests.keys import OPEN, Caller
from runtime.core.swap.routes import RoutedRelease
from runtime.errors import DeadlineExceeded, NoLiveRelease, QuotaExhausted
from runtime.observe.tracing import NoTracer, RequestSpan, TraceContext, Tracer
from runtime.traffic.chain import ChainCall
from runtime.traffic.ledger import LedgerPort, NoLedger
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Routing
from runtime.walking.context import RequestContext
from runtime.walking.reservations import BudgetPort, NoBudgets


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

    def span(self, request_id: str, trace: TraceContext, arrived: float) -> RequestSpan:
        """Begin the span of a request that ``arrived`` then, beneath its client's."""
        return self._tracer.request(request_id, trace, arrived)

    async def admit(self, ask: Ask, context: RequestContext) -> ChainCall:
        """Take a lease for what is asked; the caller closes the call that comes back.

        While the live release sleeps for a swap, the request waits here, for at most as long as its
        chain may take in all.

        Raises:
            NoLiveRelease: nothing serves yet.
            UnknownModel: the live release has no such chain.
            Overloaded: too many wait already.
            DeadlineExceeded: the models were not back in time.
            RateLimited, QuotaExhausted: its worst case does not fit into the caller's limits, nor does that
                of the chain that it degrades to (``degrade_to``).

        """
        try:
            if self._routing.paused:
                await self._wait(ask)
            return await self._begin_or_degrade(ask, context)
        except BaseException as error:
            self.turned_away(error, ask, context.caller)
            raise

    def turned_away(self, error: BaseException, ask: Ask | None = None, caller: Caller = OPEN) -> None:
        """Count a request that was not admitted; health shows it unless the client was at fault."""
        live, release, chain = self._routing.live, 0, ""
        # Only names that the release declares: a client may send any.
        if ask is not None and live is not None and ask.chain in live.routed.chains:
            release, chain = live.number, ask.chain
        self._meter.metrics.turned_away(chain, release, outcome_of(error))
        observed = ending(error, answered=False, took=0.0, objective=0.0)
        if observed is None:
            return
        refused = caller.tenant if observed is Observed.REFUSED else ""
        self._meter.recent.add(self._clock.now(), Mark(observed, release, chain, refused))

    async def _begin_or_degrade(self, ask: Ask, context: RequestContext) -> ChainCall:
        """Begin with the chain that is asked for, or the one that it degrades to if a budget has no room."""
        try:
            return await self._begin(ask, context)
        except QuotaExhausted as error:
            _, chain = self._routing.choose(ask)
            if chain.degrade_to is None:
                raise
            self._meter.metrics.degraded(ask.chain, outcome_of(error))
            context.span.degraded(ask.chain)
            return await self._begin(ask._replace(chain=chain.degrade_to), context)

    async def _begin(self, ask: Ask, context: RequestContext) -> ChainCall:
        """Take a lease and reserve what the request may spend, or neither."""
        lease = self._routing.lease(ask)
        call = ChainCall(lease, ask, context, self._clock, self._meter, self._ledger, self._budgets)
        try:
            call.check()
            await call.reserve()
        except BaseException:
            await call.aclose()
            raise
        return call

    async def _wait(self, ask: Ask) -> None:
        _, chain = self._routing.choose(ask)
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
