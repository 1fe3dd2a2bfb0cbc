"""One request on its way through its chain, on the leased release's engines."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from runtime.clock import Clock
from runtime.core.budgets.budget import Grant
from runtime.core.metering.latency import Latency
from runtime.core.metering.ledger import HopTag
from runtime.core.metering.usage import HopRecord, Usage
from runtime.core.requests.ask import Ask
from runtime.core.swap.routes import RoutedRelease
from runtime.core.walk.call import Call, Result
from runtime.core.walk.openings import check_chain_takes
from runtime.core.walk.walk import Walk
from runtime.engines.port import Chunk
from runtime.errors import DeadlineExceeded, EngineUnavailable
from runtime.traffic.ending import RequestEnd
from runtime.traffic.ledger import LedgerPort
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Lease
from runtime.traffic.settlement import Settlement
from runtime.walking.context import RequestContext
from runtime.walking.deadline import Deadline
from runtime.walking.driver import drive
from runtime.walking.hops import HopRunner
from runtime.walking.reservations import BudgetPort, Reservations
from runtime.walking.spending import Spending


class ChainCall:
    """One request on its way through its chain. It owns the lease: ``aclose`` in a ``finally``.

    ``start`` makes every call but the one that answers and waits for that one's first chunk, so that an error
    up to there can still become an HTTP status. ``chunks`` then yields the answer. What it comes to is kept
    by its ``Settlement``, how it ends is counted by its ``RequestEnd``.
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
        self._lease = lease
        chain, tag = lease.chain, _tag(lease, ask, context, clock.wall() + budgets.skew)
        context.span.leased(tag, self.release.model_set, stream=ask.stream)
        self._end = RequestEnd(clock, meter, chain, tag, context)
        self._deadline = Deadline(clock, chain.deadline, context.arrived)
        self._runner = HopRunner(lease.release, chain, tag, self._deadline, clock, context)
        hold = Reservations(budgets, clock, tag, chain.deadline)
        self._spending = Spending(hold, self.release, self._deadline, self._runner.count)
        self._settlement = Settlement(ledger, hold)
        self._runner.observers = self._settlement.hop_ended, meter.hop_ended, self._spending.hop_ended
        self._runner.before_retry = self._spending.cover_again
        self._runner.uncounted = hold.leave
        self._answer: AsyncGenerator[list[Chunk], None] | None = None
        self._first: list[Chunk] = []

    @property
    def release(self) -> RoutedRelease:
        """The release that serves it."""
        return self._lease.release.routed

    @property
    def standing(self) -> Grant | None:
        """How its caller's caps stood just after it had begun; None if it is under none."""
        return self._spending.hold.standing

    @property
    def hops(self) -> Sequence[HopRecord]:
        """The hops that have ended, in the order in which they did."""
        return self._settlement.hops

    @property
    def usage(self) -> Usage:
        """The sum over the hops that have ended."""
        return self._settlement.usage

    @property
    def left(self) -> float:
        """How many seconds are left of the chain's deadline, which counts from the request's arrival."""
        return self._deadline.left

    def latency(self) -> Latency:
        """Return where the time has gone until now, which counts as the answer's end."""
        return self._end.latency(self.hops)

    def check(self) -> None:
        """Return if the chain accepts what this request asks for. Raises InvalidRequest."""
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
        self._end.started()
        with self._end.noting():
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
        with self._end.noting():
            yield self._first
            async for chunks in self._answer:
                yield chunks
        self._end.answered()

    async def settle(self) -> None:
        """Return once every hop that has ended is in the ledger. Call it before the last byte goes out."""
        await self._settlement.settle()

    async def aclose(self) -> None:
        """Abort whatever still runs, settle, and give the lease up. The lease goes last, and always."""
        try:
            if self._answer is not None:
                await self._answer.aclose()
            await self.settle()
        finally:
            self._lease.close()
            self._end.count(self.hops)


def _tag(lease: Lease, ask: Ask, context: RequestContext, admitted: float) -> HopTag:
    """Return the tag that all hops of a request share."""
    return HopTag(
        hop="",
        request=uuid.uuid4().hex,
        request_id=context.id,
        tenant=context.caller.tenant,
        key=context.caller.key,
        session=context.session,
        chain=ask.chain,
        release=lease.release.number,
        purpose=lease.purpose.value,
        admitted=admitted,
    )
