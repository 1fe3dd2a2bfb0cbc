"""Walking a chain for one request: one hop after the other, all on the leased release's engines."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.clock import Clock
from runtime.core.budgets.budget import COUNTABLE, Amount, choices_of, completion_cap
from runtime.core.metering.cost import FREE, Price, worst_cost
from runtime.core.metering.latency import Latency, Pace, lay_out, overrun
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome, hop_outcome
from runtime.core.metering.outcomes import RequestOutcome, outcome_of
from runtime.core.metering.recent import Mark, What, ending
from runtime.core.metering.usage import NOTHING, HopRecord, Usage, total
from runtime.core.model_set.digest import SHORT
from runtime.core.requests.keys import OPEN, Caller
from runtime.core.walk.openings import check_chain_takes
from runtime.core.walk.walk import ChainRun, Hop
from runtime.engines.chunks import text_of
from runtime.engines.port import TRACE, WITHIN, Chunk
from runtime.engines.tally import TAG
from runtime.engines.time_limit import TimeLimit
from runtime.errors import (
    DeadlineExceeded,
    EngineLost,
    EngineUnavailable,
    InterlockError,
    InvalidRequest,
    RequestError,
    WrongEngine,
)
from runtime.observe.tracing import UNTRACED, HopSpan, RequestSpan
from runtime.traffic.budgets import BudgetPort, Hold
from runtime.traffic.ledger import LedgerPort
from runtime.traffic.meter import Meter
from runtime.traffic.retry import RetryingEngine
from runtime.traffic.routing import Lease

_log = logging.getLogger(__name__)

SPENT_SECONDS = 1.0
"""How long an engine may take to tell what a call has come to that was broken off."""


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


def _made_up(hop: Hop) -> dict[str, Any]:
    """Return a result that a hop may have, for prompts that read it: the choice with the longest name."""
    if hop.operation == "generate":
        return {"text": ""}
    return {"choice": max(hop.body["choices"], key=len), "scores": dict.fromkeys(hop.body["choices"], 0.0)}


class _Stopwatch:
    """Times of one hop, in seconds since it was sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sent = clock.now()
        self.first: float | None = None
        self.in_engine = 0.0
        """The engine's own time to its first answer."""
        self.pace = Pace()

    def mark(self, in_engine: float, tokens: int) -> None:
        """Note the arrival of an answer, or of a part of one: ``tokens`` have been generated so far."""
        elapsed = self.elapsed
        if self.first is None:
            self.first = elapsed
            self.in_engine = in_engine
        self.pace.arrive(elapsed, tokens)

    @property
    def elapsed(self) -> float:
        """Seconds since the hop was sent."""
        return self._clock.now() - self.sent


@dataclass
class _HopCount:
    """What is known of a running hop."""

    tag: HopTag
    watch: _Stopwatch
    client: RetryingEngine
    span: HopSpan
    usage: Usage = NOTHING
    outcome: Outcome = Outcome.CANCELLED
    error: InterlockError | None = None
    """What ended it early, unless the client did."""
    what: What | None = None
    """How it counts; not at all if its client has ended it, or sent what its engine refuses."""
    signed: str = ""
    """The (shortened) digest of the engine that answered, as its host signed it."""


class ChainCall:
    """One request on its way through its chain. It owns the lease: ``aclose`` in a ``finally``.

    ``start`` runs every hop but the last and waits for the last one's first chunk, so that an error
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
        self.hops: list[HopRecord] = []
        self._lease = lease
        self._clock = clock
        self._meter = meter
        self._ledger = ledger
        self._id = uuid.uuid4().hex
        self._rows: list[LedgerRow] = []
        self._admitted = clock.wall() + budgets.skew
        self._tag = self._shared_tag()
        self.hold = Hold(budgets, clock, self._tag, lease.chain.deadline)
        self._span = span
        span.leased(self._tag, self.release.model_set, stream=request.stream)
        self._begun = clock.now()
        self._arrived = self._begun if arrived is None else arrived
        self._run = self._walk()
        self._answer: AsyncGenerator[list[Chunk], None] | None = None
        self._first: list[Chunk] = []
        self._generated = NOTHING
        self._started = self._answered = False
        self._error: Exception | None = None
        self._ended: float | None = None
        self._spent_so_far = Amount()

    @property
    def usage(self) -> Usage:
        """The sum over the hops that have ended."""
        return total(hop.usage for hop in self.hops)

    def latency(self) -> Latency:
        """Return where the time has gone up to now, which the caller takes for the answer's end."""
        self._ended = self._clock.now()
        return lay_out(self.hops, self._since_arrival(self._begun), self._since_arrival(self._ended))

    def _since_arrival(self, stamp: float) -> float:
        return (stamp - self._arrived) * 1000.0

    def check(self) -> None:
        """Return if its chain takes from clients what this request says. Raises InvalidRequest."""
        request = self.request
        check_chain_takes(request.model, self._lease.chain, request.messages, request.body)

    async def reserve(self) -> None:
        """Reserve the request's worst case in every cap of its caller. Nothing has been spent before.

        Raises:
            RateLimited, QuotaExhausted: it does not fit.
            InvalidRequest: an engine would refuse what the client sent.
            EngineUnavailable: an engine does not tell how long a prompt is.
            StoreUnavailable: the caps cannot be asked for.
            DeadlineExceeded: the store did not answer within the chain's deadline.

        """
        try:
            async with asyncio.timeout(self.left):
                await self.hold.look()
                await self.hold.begin(await self._worst_case() if self.hold.counts_tokens else Amount())
        except TimeoutError as error:
            deadline = self._lease.chain.deadline
            message = f"the chain's deadline of {deadline:g} s passed before its budgets had answered"
            raise DeadlineExceeded(message) from error

    async def _worst_case(self) -> Amount:
        """Return what all hops may read and generate: later prompts may hold earlier answers.

        A prompt of made-up answers may be refused where the right one is not; it is known before its hop.
        """
        walk, worst, answered = self._walk(rehearsal=True), Amount(), 0
        for position in itertools.count():
            hop = walk.next_hop()
            if hop is None:
                break
            try:
                prompt, completion = await self._worst_of(hop)
            except InvalidRequest:
                if position == 0:
                    raise
                break
            longest = max(prompt, min(prompt + answered, self._context(hop)))
            worst = worst.plus(self._at_most(hop, longest, completion))
            answered += completion
            walk.record(_made_up(hop))
        return worst

    def _context(self, hop: Hop) -> int:
        return self.release.contexts.get(hop.engine, COUNTABLE)

    def _at_most(self, hop: Hop, prompt: int, completion: int) -> Amount:
        return Amount(prompt + completion, worst_cost(self._price(hop), prompt, completion))

    def _price(self, hop: Hop) -> Price:
        return self.release.prices.get(hop.engine, FREE)

    async def _worst_of(self, hop: Hop) -> tuple[int, int]:
        """Return how many tokens a hop will read, and how many it may generate."""
        with self._until_deadline(hop) as limit, limit:
            prompt = await self._client(hop).count(hop.operation, hop.body)
        if hop.operation == "classify":
            return prompt, 0
        room = max(0, self._context(hop) - prompt)
        return prompt, min(completion_cap(hop.body), room * choices_of(hop.body))

    def _walk(self, *, rehearsal: bool = False) -> ChainRun:
        request = self.request
        return ChainRun(self._lease.chain, request.messages, request.body, rehearsal=rehearsal)

    async def start(self) -> None:
        """Go as far as the first chunk of the answer.

        Raises:
            InvalidRequest: an engine, or a prompt, refuses what the client sent.
            DeadlineExceeded: the chain's deadline passed.
            EngineUnavailable: an engine did not answer or failed.

        """
        self._started = True
        with self._noting():
            await self._reach_answer()

    async def _reach_answer(self) -> None:
        while (hop := self._run.next_hop()) is not None:
            if self.hops and self.hold.counts_tokens:
                # Now that its prompt is known: what was reserved for it was a guess at what it would hold.
                worst = self._at_most(hop, *await self._worst_of(hop))
                with self._until_deadline(hop) as limit, limit:
                    await self.hold.cover(self._spent_so_far.plus(worst))
            if hop.final:
                self._answer = self._generate(hop, stream=self.request.stream)
                self._first = await anext(self._answer, [])
                if not self._first:
                    raise EngineUnavailable(f"step {hop.step!r} ended without an answer")
                return
            self._run.record(await self._intermediate(hop))

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
        rows, self._rows = self._rows, []
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
        if what is not None:
            refused = self.request.caller.tenant if what is What.REFUSED else ""
            self._meter.recent.add(ended, Mark(what, self.release.number, self.request.model, refused))
        own = took - sum(hop.duration_ms for hop in self.hops) / 1000.0
        where = self.request.model, self.release.number
        self._meter.metrics.request(*where, self._outcome(), took, max(0.0, own))

    def _outcome(self) -> RequestOutcome:
        if self._error is not None:
            return outcome_of(self._error)
        return RequestOutcome.OK if self._answered else RequestOutcome.CANCELLED

    # -- hops -------------------------------------------------------------------------------------

    async def _intermediate(self, hop: Hop) -> dict[str, Any]:
        if hop.operation == "classify":
            return await self._classify(hop)
        last: list[Chunk] = []
        async for chunks in self._generate(hop, stream=False):
            last = chunks
        if not last:
            raise EngineUnavailable(f"step {hop.step!r} ended without an answer")
        return {"text": text_of(last[-1])}

    async def _classify(self, hop: Hop) -> dict[str, Any]:
        count = self._count(hop)
        try:
            with self._counted(count), self._until_deadline(hop) as limit, limit:
                answer = await count.client.classify({**hop.body, **self._told(count)})
                count.watch.mark(answer.elapsed, answer.usage.completion)
                count.usage = answer.usage
                self._sign(count, answer.engine)
            count.outcome = Outcome.OK
            return {"choice": answer.choice, "scores": dict(answer.scores)}
        finally:
            await self._record(count)

    async def _generate(self, hop: Hop, *, stream: bool) -> AsyncGenerator[list[Chunk], None]:
        count = self._count(hop)
        answer = count.client.generate({**hop.body, "stream": stream, **self._told(count)})
        try:
            with self._counted(count), self._until_deadline(hop) as limit:
                while True:
                    with limit:
                        chunks = await anext(answer, None)
                    if chunks is None:
                        break
                    count.usage = chunks[-1].usage
                    count.watch.mark(chunks[0].elapsed, count.usage.completion)
                    self._sign(count, chunks[0].engine)
                    yield chunks
            count.outcome = Outcome.OK
        finally:
            await answer.aclose()
            await self._record(count)
            self._generated = self._generated.plus(count.usage)

    def _told(self, count: _HopCount) -> dict[str, Any]:
        """Return what an engine's host is told of a call: all, for a client may have named it in its body."""
        return {TAG: count.tag.plain(), WITHIN: self.left, TRACE: count.span.context}

    def _client(self, hop: Hop, span: HopSpan | None = None) -> RetryingEngine:
        retried = self._retried(hop, span) if span else None
        return RetryingEngine(self._lease.release.clients[hop.engine], retried)

    def _retried(self, hop: Hop, span: HopSpan) -> Callable[[EngineLost], Awaitable[None]]:
        async def retried(error: EngineLost) -> None:
            span.retried(error)
            if self.hold.counts_tokens:
                # If only the way to it was lost, the replica goes on, and what both come to is spent.
                worst = self._at_most(hop, *await self._worst_of(hop))
                await self.hold.cover(self._spent_so_far.plus(worst).plus(worst))
                self.hold.leave()

        return retried

    def _sign(self, count: _HopCount, engine: str) -> None:
        """Note who signed an answer, which is on its first chunk.

        One that an engine of another release has signed, or nobody, is thrown away: it must not be mixed in.
        """
        count.signed = count.signed or engine
        routed = count.tag.engine
        if not count.signed or not routed.startswith(engine):
            message = f"step {count.tag.step!r} of release {self.release.number} was answered by "
            raise WrongEngine(f"{message}engine {engine or '?'}, not by {routed[:SHORT]}; please report this")

    def _shared_tag(self) -> HopTag:
        """Return what all hops of this request say of it."""
        return HopTag(
            hop="",
            request=self._id,
            request_id=self.request.request_id,
            tenant=self.request.caller.tenant,
            key=self.request.caller.key,
            session=self.request.session,
            chain=self.request.model,
            release=self.release.number,
            admitted=self._admitted,
        )

    def _count(self, hop: Hop) -> _HopCount:
        tag = self._tag._replace(
            hop=f"{self._id}-{len(self.hops)}",
            step=hop.step,
            engine=self.release.engines[hop.engine],
            started=self._clock.wall(),
        ).priced(self._price(hop))
        watch = _Stopwatch(self._clock)
        span = self._span.hop(hop, watch.sent)
        return _HopCount(tag, watch, self._client(hop, span), span)

    @contextmanager
    def _counted(self, count: _HopCount) -> Iterator[None]:
        """Note how the hop ends if this is where it does."""
        try:
            yield
        except InterlockError as error:
            count.outcome, count.error = hop_outcome(error), error
            count.what = None if isinstance(error, RequestError) else What.HOP_FAILED
            raise

    async def _record(self, count: _HopCount) -> None:
        """Keep what a hop came to. Of one that was broken off, the engine alone knows."""
        watch = count.watch
        duration = watch.elapsed
        if count.outcome is not Outcome.OK:
            count.usage = await self._spent(count)
        first = duration if watch.first is None else watch.first
        record = HopRecord(
            step=count.tag.step,
            engine=count.signed,
            usage=count.usage,
            queue_ms=max(0.0, first - watch.in_engine) * 1000.0,
            ttft_ms=first * 1000.0,
            duration_ms=duration * 1000.0,
            start_ms=self._since_arrival(watch.sent),
            generation_ms=watch.pace.generation_ms,
            inter_token_ms=watch.pace.mean_ms,
            inter_token_max_ms=watch.pace.max_ms,
            overrun_ms=overrun(duration, self._lease.chain.latency_budget.get(count.tag.step)),
        )
        self.hops.append(record)
        self._meter.record(count.tag.engine, count.usage)
        self._meter.metrics.hop(count.tag, count.outcome, record)
        if record.overrun_ms:
            self._meter.record_overrun(count.tag.chain, count.tag.step)
            self._mark(count, What.HOP_OVERRAN, watch.sent + duration)
        what = What.HOP_DONE if count.outcome is Outcome.OK else count.what
        if what is not None:
            self._mark(count, what, watch.sent + duration)
        tag, times = self._tag_of(count), (record.queue_ms, record.ttft_ms, record.duration_ms)
        row = LedgerRow(tag, count.usage, count.outcome, *times)
        self._rows.append(row)
        self._spent_so_far = self._spent_so_far.plus(Amount(count.usage.total, row.cost))
        count.span.end(row, record, count.error)

    def _mark(self, count: _HopCount, what: What, at: float) -> None:
        self._meter.recent.add(at, Mark(what, count.tag.release, count.tag.chain, count.tag.step))

    def _tag_of(self, count: _HopCount) -> HopTag:
        """Return the tag of the attempt that counts; one before it, if there was, has a row of its own."""
        return count.client.tag or count.tag

    async def _spent(self, count: _HopCount) -> Usage:
        """Return the engine's own count of a hop, or what was seen of it if the engine does not tell in time.

        What it tells later, the manager brings into the ledger.
        """
        try:
            async with asyncio.timeout(SPENT_SECONDS):
                spent = await count.client.spent(self._tag_of(count).hop)
        except (InterlockError, TimeoutError) as error:
            _log.warning("hop %s: its engine does not tell what it spent: %r", count.tag.hop, error)
            self.hold.leave()
            return count.usage
        return spent or count.usage

    @contextmanager
    def _until_deadline(self, hop: Hop) -> Iterator[TimeLimit]:
        """Give the limit of each wait for an engine; what it ends is too late for the chain's deadline."""
        limit = TimeLimit(self.left)
        try:
            yield limit
        except TimeoutError as error:
            raise self._too_late(hop) from error
        finally:
            limit.close()

    def _too_late(self, hop: Hop) -> DeadlineExceeded:
        deadline = self._lease.chain.deadline
        return DeadlineExceeded(f"the chain's deadline of {deadline:g} s passed in step {hop.step!r}")

    @property
    def left(self) -> float:
        """How many seconds are left of the chain's deadline, which counts from the request's arrival."""
        return self._lease.chain.deadline - (self._clock.now() - self._arrived)
