"""One request on its way through its chain, on the leased release's engines."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.clock import Clock
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.latency import Latency, latency_of
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.metering.outcomes import RequestOutcome, outcome_of
from runtime.core.metering.recent import Mark, Observed, ending
from runtime.core.metering.usage import HopRecord, Usage, total
from runtime.core.requests.keys import OPEN, Caller
from runtime.core.walk.call import Call, Result
from runtime.core.walk.openings import check_chain_takes
from runtime.core.walk.walk import Walk
from runtime.engines.port import Chunk
from runtime.errors import DeadlineExceeded, EngineUnavailable
from runtime.observe.tracing import UNTRACED, RequestSpan
from runtime.traffic.ledger import LedgerPort
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Lease
from runtime.walking.budgets import BudgetPort, Reservations
from runtime.walking.deadline import Deadline
from runtime.walking.driver import drive
from runtime.walking.hops import HopRunner
from runtime.walking.spending import Spending


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion as the client asked for it: the chain, and the conversation in its normal form."""

    request_id: str
    model: str
    messages: list[dict[str, Any]]
    body: dict[str, Any]
    """What it says beside its messages to the engine of the last step."""
    stream: bool
    caller: Caller = OPEN
    session: str = ""
    """The conversation that it is a turn of, by its tenant's id for it; empty if it is of none."""
    include_usage: bool = False
    """Whether its stream ends with a chunk that has the usage."""


class ChainCall:
    """One request on its way through its chain. It owns the lease: ``aclose`` in a ``finally``.

    ``start`` makes every call but the one that answers and waits for that one's first chunk, so that an error
    up to there can still become an HTTP status. ``chunks`` then yields the answer. ``arrived`` is the
    clock's stamp of the request's arrival; without one it has arrived just now.
    """

    def __init__(
        self,
        lease: Lease,
        request: ChatRequest,
        clock: Clock,
        meter: Meter,
        ledger: LedgerPort,
        budgets: BudgetPort,
        arrived: float | None = None,
        span: RequestSpan = UNTRACED,
    ) -> None:
        self.request = request
        self.release = lease.release.routed
        self._lease = lease
        self._clock = clock
        self._meter = meter
        self._ledger = ledger
        self._span = span
        self._begun = clock.now()
        self._arrived = self._begun if arrived is None else arrived
        tag = self._tag(clock.wall() + budgets.skew)
        span.leased(tag, self.release.model_set, stream=request.stream)
        self._deadline = Deadline(clock, lease.chain.deadline, self._arrived)
        self._runner = HopRunner(lease.release, lease.chain, tag, self._deadline, clock, self._arrived, span)
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
            request_id=self.request.request_id,
            tenant=self.request.caller.tenant,
            key=self.request.caller.key,
            session=self.request.session,
            chain=self.request.model,
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
    def left(self) -> float:
        """How many seconds are left of the chain's deadline, which counts from the request's arrival."""
        return self._deadline.left

    def latency(self) -> Latency:
        """Return where the time has gone up to now, which the caller takes for the answer's end."""
        self._ended = self._clock.now()
        return latency_of(self.hops, self._since_arrival(self._begun), self._since_arrival(self._ended))

    def _since_arrival(self, stamp: float) -> float:
        return (stamp - self._arrived) * 1000.0

    def check(self) -> None:
        """Return if its chain takes from clients what this request says. Raises InvalidRequest."""
        request = self.request
        check_chain_takes(request.model, self._lease.chain, request.messages, request.body)

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
        return Walk(self._lease.chain, self.request.messages, self.request.body, rehearsal=rehearsal)

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
            self._answer = self._runner.generate(call, stream=self.request.stream)
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
            self._span.failed(error)
            raise

    def _count_request(self) -> None:
        """Count how the request has ended; one that never began is admission's to count."""
        if not self._started:
            return
        ended = self._clock.now() if self._ended is None else self._ended
        took, objective = ended - self._arrived, self._lease.chain.latency_objective
        what = ending(self._error, answered=self._answered, took=took, objective=objective)
        if what is not None and self._lease.purpose is Purpose.LIVE:
            refused = self.request.caller.tenant if what is Observed.REFUSED else ""
            self._meter.recent.add(ended, Mark(what, self.release.number, self.request.model, refused))
        own = took - sum(hop.duration_ms for hop in self.hops) / 1000.0
        where = self.request.model, self.release.number
        self._meter.metrics.request(*where, self._outcome(), took, max(0.0, own))

    def _outcome(self) -> RequestOutcome:
        if self._error is not None:
            return outcome_of(self._error)
        return RequestOutcome.OK if self._answered else RequestOutcome.CANCELLED
