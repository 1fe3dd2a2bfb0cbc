"""One request on its way through its chain, on the leased release's engines."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

from runtime.clock import Clock
from runtime.core.budgets.budget import Standing
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.latency import Latency, latency_of
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.metering.outcomes import RequestOutcome, outcome_of
from runtime.core.metering.recent import Mark, Observed, ending
from runtime.core.metering.usage import HopRecord, Usage, total
from runtime.core.requests.ask import Ask
from runtime.core.walk.call import Call, Result
from runtime.core.walk.openings import check_chain_takes
from runtime.core.walk.walk import Walk
from runtime.engines.port import Chunk
from runtime.errors import DeadlineExceeded, EngineUnavailable
from runtime.traffic.ledger import LedgerPort
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Lease
from runtime.walking.budgets import BudgetPort, Reservations
from runtime.walking.context import RequestContext
from runtime.walking.deadline import Deadline
from runtime.walking.driver import drive
from runtime.walking.hops import HopRunner
from runtime.walking.spending import Spending


class ChainCall:
    """One request on its way through its chain. It owns the lease: ``aclose`` in a ``finally``.

    ``start`` makes every call but the one that answers and waits for that one's first chunk, so that an error
    up to there can still become an HTTP status. ``chunks`` then yields the answer.
    """

    def __init__(
        self,
        lease: Lease,
        ask: Ask,
        context: RequestContext,
        clock: Clock,
        meter: Meter,
        ledger: LedgerPort,
        budgets: BudgetPort,
    ) -> None:
        self.ask = ask
        self.context = context
        self.release = lease.release.routed
        self._lease = lease
        self._clock = clock
        self._meter = meter
        self._ledger = ledger
        self._begun = clock.now()
        tag = self._tag(clock.wall() + budgets.skew)
        context.span.leased(tag, self.release.model_set, stream=ask.stream)
        self._deadline = Deadline(clock, lease.chain.deadline, context.arrived)
        self._runner = HopRunner(lease.release, lease.chain, tag, self._deadline, clock, context)
        self.hold = Reservations(budgets, clock, tag, lease.chain.deadline)
        self._spending = Spending(self.hold, self.release, self._deadline, self._runner.count)
        self._runner.observers = (self._hop_ended, meter.hop_ended, self._spending.hop_ended)
        self._runner.before_retry = self._spending.cover_again
        self._runner.uncounted = self.hold.leave
        self._ended_hops: list[HopEnded] = []
        self._in_ledger = 0
        """How many of them have been written."""
        self._answer: AsyncGenerator[list[Chunk], None] | None = None
        self._first: list[Chunk] = []
        self._started = self._answered = False
        self._error: Exception | None = None
        self._ended: float | None = None

    def _tag(self, admitted: float) -> HopTag:
        """Return what all hops of this request say of it."""
        return HopTag(
            hop="",
            request=uuid.uuid4().hex,
            request_id=self.context.id,
            tenant=self.context.caller.tenant,
            key=self.context.caller.key,
            session=self.context.session,
            chain=self.ask.chain,
            release=self.release.number,
            purpose=self._lease.purpose.value,
            admitted=admitted,
        )

    @property
    def hops(self) -> list[HopRecord]:
        """The hops that have ended, in the order in which they did."""
        return [ended.record for ended in self._ended_hops]

    @property
    def usage(self) -> Usage:
        """The sum over the hops that have ended."""
        return total(ended.record.usage for ended in self._ended_hops)

    @property
    def standing(self) -> Standing | None:
        """How its caller's caps stood just after it had begun; None if it is under none."""
        return self.hold.standing

    @property
    def left(self) -> float:
        """How many seconds are left of the chain's deadline, which counts from the request's arrival."""
        return self._deadline.left

    def latency(self) -> Latency:
        """Return where the time has gone up to now, which the caller takes for the answer's end."""
        self._ended = self._clock.now()
        return latency_of(self.hops, self._since_arrival(self._begun), self._since_arrival(self._ended))

    def _since_arrival(self, stamp: float) -> float:
        return (stamp - self.context.arrived) * 1000.0

    def check(self) -> None:
        """Return if its chain takes from clients what this request says. Raises InvalidRequest."""
        check_chain_takes(self._lease.chain, self.ask)

    async def reserve(self) -> None:
        """Reserve the request's worst case in every cap of its caller. Raises as ``Spending.begin``.

        Raises:
            DeadlineExceeded: the store did not answer within the chain's deadline.

        """
        try:
            async with asyncio.timeout(self.left):
                await self._spending.begin(self._walk(rehearsal=True))
        except TimeoutError as error:
            deadline = self._lease.chain.deadline
            message = f"the chain's deadline of {deadline:g} s passed before its budgets had answered"
            raise DeadlineExceeded(message) from error

    def _walk(self, *, rehearsal: bool = False) -> Walk:
        return Walk(self._lease.chain, self.ask.messages, self.ask.params, rehearsal=rehearsal)

    async def start(self) -> None:
        """Go as far as the first chunk of the answer.

        Raises:
            InvalidRequest: an engine, or a prompt, refuses what the client sent.
            DeadlineExceeded: the chain's deadline passed.
            EngineUnavailable: an engine did not answer or failed.

        """
        self._started = True
        with self._noting():
            call = await drive(self._walk(), self._make, to_answer=True)
            assert call is not None  # noqa: S101 - every chain has a step that answers
            await self._spending.cover(call)
            self._answer = self._runner.generate(call, stream=self.ask.stream)
            self._first = await anext(self._answer, [])
            if not self._first:
                raise EngineUnavailable(f"step {call.step!r} ended without an answer")

    async def _make(self, call: Call) -> Result:
        await self._spending.cover(call)
        return await self._runner.make(call)

    async def chunks(self) -> AsyncIterator[list[Chunk]]:
        """Yield the answer's chunks, the first of which ``start`` has already fetched."""
        if self._answer is None:
            raise EngineUnavailable("the chain has not been started")
        with self._noting():
            yield self._first
            async for chunks in self._answer:
                yield chunks
        self._answered = True

    async def settle(self) -> None:
        """Return once every hop that has ended is in the ledger. Call it before the last byte goes out."""
        rows = [ended.row for ended in self._ended_hops[self._in_ledger :]]
        self._in_ledger = len(self._ended_hops)
        held, self.hold.names = self.hold.names, []
        if rows or held:
            await self._ledger.write(rows, held)

    async def aclose(self) -> None:
        """Abort whatever still runs, settle, and give the lease up. The lease goes last, and always."""
        try:
            if self._answer is not None:
                await self._answer.aclose()
            await self.settle()
        finally:
            self._lease.close()
            self._meter.record_request(self.release.number, self._generated)
            self._count_request()

    def _hop_ended(self, ended: HopEnded) -> None:
        self._ended_hops.append(ended)

    @property
    def _generated(self) -> Usage:
        """What its generating hops have read and written."""
        generating = self._lease.chain.generating
        return total(hop.usage for hop in self.hops if hop.step in generating)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note what ends the request, if it is an error."""
        try:
            yield
        except Exception as error:
            self._error = error
            self.context.span.failed(error)
            raise

    def _count_request(self) -> None:
        """Count how the request has ended; one that never began is admission's to count."""
        if not self._started:
            return
        ended = self._clock.now() if self._ended is None else self._ended
        took, objective = ended - self.context.arrived, self._lease.chain.latency_objective
        what = ending(self._error, answered=self._answered, took=took, objective=objective)
        if what is not None and self._lease.purpose is Purpose.LIVE:
            refused = self.context.caller.tenant if what is Observed.REFUSED else ""
            self._meter.recent.add(ended, Mark(what, self.release.number, self.ask.chain, refused))
        own = took - sum(hop.duration_ms for hop in self.hops) / 1000.0
        where = self.ask.chain, self.release.number
        self._meter.metrics.request(*where, self._outcome(), took, max(0.0, own))

    def _outcome(self) -> RequestOutcome:
        if self._error is not None:
            return outcome_of(self._error)
        return RequestOutcome.OK if self._answered else RequestOutcome.CANCELLED
