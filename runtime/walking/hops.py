"""One call of a walk, made: retried once, bounded by the deadline, counted, signed, and reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.clock import Clock
from runtime.core.metering.cost import FREE
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.latency import Pace, overrun
from runtime.core.metering.ledger import HopTag, Outcome, hop_outcome
from runtime.core.metering.usage import NOTHING, HopRecord, Usage
from runtime.core.model_set.digest import SHORT
from runtime.core.swap.routes import RoutedRelease
from runtime.core.walk.call import Call, Choice, Operation, Result, Text
from runtime.core.walk.chain import Chain
from runtime.engines.chunks import text_of
from runtime.engines.port import TRACE, WITHIN, Chunk, EngineClient
from runtime.engines.tally import TAG
from runtime.errors import EngineLost, EngineUnavailable, InterlockError, WrongEngine
from runtime.observe.tracing import HopSpan
from runtime.walking.context import RequestContext
from runtime.walking.deadline import Deadline
from runtime.walking.retry import RetryingEngine

_log = logging.getLogger(__name__)

SPENT_SECONDS = 1.0
"""How long an engine may take to report what a call that was broken off has spent."""

HopObserver = Callable[[HopEnded], None]
"""Called with each hop that has ended."""


@dataclass(frozen=True)
class PreparedRelease:
    """A release whose engines this gateway has resolved and pinged."""

    routed: RoutedRelease
    clients: Mapping[str, EngineClient]
    """Engine name to client."""

    @property
    def number(self) -> int:
        """The release's number."""
        return self.routed.number


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
class _Hop:
    """What is known of a hop under way."""

    call: Call
    tag: HopTag
    watch: _Stopwatch
    client: RetryingEngine
    span: HopSpan
    usage: Usage = NOTHING
    outcome: Outcome = Outcome.CANCELLED
    error: InterlockError | None = None
    """What ended it early, unless the client did."""
    signed: str = ""
    """The (shortened) digest of the engine that answered, as its host signed it."""

    def sign(self, engine: str) -> None:
        """Note who signed an answer, which is on its first chunk.

        One that an engine of another release has signed, or nobody, is thrown away: it must not be mixed in.
        """
        self.signed = self.signed or engine
        if not self.signed or not self.tag.engine.startswith(engine):
            message = f"step {self.tag.step!r} of release {self.tag.release} was answered by engine "
            raise WrongEngine(
                f"{message}{engine or '?'}, not by {self.tag.engine[:SHORT]}; please report this"
            )

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note how the hop ends if it ends in this block."""
        try:
            yield
        except InterlockError as error:
            self.outcome, self.error = hop_outcome(error), error
            raise


class HopRunner:
    """Makes the calls of one request, on one release. ``tag`` has what all hops of the request share."""

    def __init__(
        self,
        release: PreparedRelease,
        chain: Chain,
        tag: HopTag,
        deadline: Deadline,
        clock: Clock,
        context: RequestContext,
    ) -> None:
        self._release = release
        self._chain = chain
        self._tag = tag
        self._deadline = deadline
        self._clock = clock
        self._context = context
        self.observers: Sequence[HopObserver] = ()
        self.before_retry: Callable[[Call], Awaitable[None]] | None = None
        """Called before a call is made again whose replica is lost; what it raises ends the call."""
        self.uncounted: Callable[[], None] = lambda: None
        """Called when an engine has not said in time what a call has spent; the manager collects it later."""

    async def count(self, call: Call) -> int:
        """Return how many tokens a call's prompt has. Raises as ``make`` does."""
        with self._deadline.within(call.step) as limit, limit:
            return await RetryingEngine(self._release.clients[call.engine]).count(call.operation, call.body)

    async def make(self, call: Call) -> Result:
        """Make a call to its end.

        Raises:
            InvalidRequest: the engine refuses what the client sent.
            DeadlineExceeded: the chain's deadline passed.
            EngineUnavailable: the engine did not answer, or failed.

        """
        if call.operation is Operation.CLASSIFY:
            return await self._classify(call)
        last: list[Chunk] = []
        async for chunks in self.generate(call, stream=False):
            last = chunks
        if not last:
            raise EngineUnavailable(f"step {call.step!r} ended without an answer")
        return Text(text_of(last[-1]))

    async def _classify(self, call: Call) -> Choice:
        hop = self._begin(call)
        try:
            with hop.noting(), self._deadline.within(call.step) as limit, limit:
                answer = await hop.client.classify({**call.body, **self._call_context(hop)})
                hop.watch.mark(answer.elapsed, answer.usage.completion)
                hop.usage = answer.usage
                hop.sign(answer.engine)
            hop.outcome = Outcome.OK
            return Choice(answer.choice, dict(answer.scores))
        finally:
            await self._end(hop)

    async def generate(self, call: Call, *, stream: bool) -> AsyncGenerator[list[Chunk], None]:
        """Yield the chunks of a call's answer. Raises as ``make`` does."""
        hop = self._begin(call)
        answer = hop.client.generate({**call.body, "stream": stream, **self._call_context(hop)})
        try:
            with hop.noting(), self._deadline.within(call.step) as limit:
                while True:
                    with limit:
                        chunks = await anext(answer, None)
                    if chunks is None:
                        break
                    hop.usage = chunks[-1].usage
                    hop.watch.mark(chunks[0].elapsed, hop.usage.completion)
                    hop.sign(chunks[0].engine)
                    yield chunks
            hop.outcome = Outcome.OK
        finally:
            await answer.aclose()
            await self._end(hop)

    def _begin(self, call: Call) -> _Hop:
        tag = self._tag._replace(
            hop=f"{self._tag.request}-{call.id}",
            step=call.step,
            engine=self._release.routed.engines[call.engine],
            started=self._clock.wall(),
        ).priced(self._release.routed.prices.get(call.engine, FREE))
        watch = _Stopwatch(self._clock)
        span = self._context.span.hop(call, watch.sent)

        async def retried(error: EngineLost) -> None:
            span.retried(error)
            if self.before_retry is not None:
                await self.before_retry(call)

        client = RetryingEngine(self._release.clients[call.engine], retried)
        return _Hop(call, tag, watch, client, span)

    def _call_context(self, hop: _Hop) -> dict[str, Any]:
        """Return what the engine's host gets with a call. Always every key: a client may have sent one."""
        return {TAG: hop.tag.plain(), WITHIN: self._deadline.left, TRACE: hop.span.context}

    async def _end(self, hop: _Hop) -> None:
        """Report what a hop came to. Only the engine knows what one that was broken off has spent."""
        duration = hop.watch.elapsed
        tag = hop.client.tag or hop.tag
        try:
            if hop.outcome is not Outcome.OK:
                hop.usage = await self._spent(hop, tag)
        except asyncio.CancelledError:
            self.uncounted()  # its client left while the engine was asked: what was spent is unknown here
            raise
        finally:
            self._report(hop, tag, duration)

    def _report(self, hop: _Hop, tag: HopTag, duration: float) -> None:
        ended = HopEnded(
            hop.call.id,
            tag,
            hop.outcome,
            self._record(hop, duration),
            hop.watch.sent + duration,
            hop.error,
        )
        for observer in self.observers:
            observer(ended)
        hop.span.end(ended)

    def _record(self, hop: _Hop, duration: float) -> HopRecord:
        watch = hop.watch
        first = duration if watch.first is None else watch.first
        return HopRecord(
            step=hop.call.step,
            engine=hop.signed,
            usage=hop.usage,
            queue_ms=max(0.0, first - watch.in_engine) * 1000.0,
            ttft_ms=first * 1000.0,
            duration_ms=duration * 1000.0,
            start_ms=(watch.sent - self._context.arrived) * 1000.0,
            generation_ms=watch.pace.generation_ms,
            inter_token_ms=watch.pace.mean_ms,
            inter_token_max_ms=watch.pace.max_ms,
            overrun_ms=overrun(duration, self._chain.latency_budget.get(hop.call.step)),
        )

    async def _spent(self, hop: _Hop, tag: HopTag) -> Usage:
        """Return the engine's own count of a hop; what was seen here if it does not answer in time."""
        try:
            async with asyncio.timeout(SPENT_SECONDS):
                spent = await hop.client.spent(tag.hop)
        except (InterlockError, TimeoutError) as error:
            _log.warning("hop %s: its engine did not report what it spent: %r", hop.tag.hop, error)
            self.uncounted()
            return hop.usage
        return spent or hop.usage
