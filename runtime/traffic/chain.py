"""Walking a chain for one request: one hop after the other, all on the leased release's engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from runtime.clock import Clock
from runtime.core.chain import ChainRun, Hop
from runtime.core.digest import SHORT
from runtime.core.keys import OPEN, Caller
from runtime.core.usage import NOTHING, HopRecord, Usage, total
from runtime.engines.chunks import text_of
from runtime.engines.port import Chunk, EngineClient
from runtime.errors import DeadlineExceeded, EngineUnavailable, WrongEngine
from runtime.traffic.meter import Meter
from runtime.traffic.retry import RetryingEngine
from runtime.traffic.routing import Lease


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion as the client asked for it: the chain, the conversation, the whole body."""

    request_id: str
    model: str
    messages: list[dict[str, Any]]
    body: dict[str, Any]
    stream: bool
    caller: Caller = OPEN


class _Stopwatch:
    """Times of one hop, in seconds since it was sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent = clock.now()
        self.first: float | None = None
        self.in_engine = 0.0
        """The engine's own time to its first answer."""

    def mark(self, in_engine: float) -> None:
        """Note an answer's arrival; only the first counts."""
        if self.first is None:
            self.first = self.elapsed
            self.in_engine = in_engine

    @property
    def elapsed(self) -> float:
        """Seconds since the hop was sent."""
        return self._clock.now() - self._sent


class ChainCall:
    """One request on its way through its chain. It owns the lease: ``aclose`` in a ``finally``.

    ``start`` runs every hop but the last and waits for the last one's first chunk, so that an error
    up to there can still become an HTTP status. ``chunks`` then yields the answer.
    """

    def __init__(self, lease: Lease, request: ChatRequest, clock: Clock, meter: Meter) -> None:
        self.request = request
        self.release = lease.release.routed
        self.hops: list[HopRecord] = []
        self._lease = lease
        self._clock = clock
        self._meter = meter
        self._begun = clock.now()
        self._run = ChainRun(lease.chain, request.messages, request.body)
        self._answer: AsyncGenerator[list[Chunk], None] | None = None
        self._first: list[Chunk] = []
        self._generated = NOTHING

    @property
    def usage(self) -> Usage:
        """The sum over the hops that have ended."""
        return total(hop.usage for hop in self.hops)

    async def start(self) -> None:
        """Go as far as the first chunk of the answer.

        Raises:
            InvalidRequest: an engine, or a prompt, refuses what the client sent.
            DeadlineExceeded: the chain's deadline passed.
            EngineUnavailable: an engine did not answer or failed.

        """
        while (hop := self._run.next_hop()) is not None:
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
        yield self._first
        async for chunks in self._answer:
            yield chunks

    async def aclose(self) -> None:
        """Abort whatever still runs and give the lease up. The lease goes last, and always."""
        try:
            if self._answer is not None:
                await self._answer.aclose()
        finally:
            self._lease.close()
            self._meter.record_request(self.release.number, self._generated)

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
        watch, usage = _Stopwatch(self._clock), NOTHING
        try:
            async with self._until_deadline(hop):
                answer = await self._client(hop).classify(hop.body)
            watch.mark(answer.elapsed)
            usage = answer.usage
            self._check_engine(hop, answer.engine)
            return {"choice": answer.choice, "scores": dict(answer.scores)}
        finally:
            self._record(hop, watch, usage)

    async def _generate(self, hop: Hop, *, stream: bool) -> AsyncGenerator[list[Chunk], None]:
        watch, usage = _Stopwatch(self._clock), NOTHING
        answer = self._client(hop).generate({**hop.body, "stream": stream})
        try:
            while True:
                async with self._until_deadline(hop):
                    chunks = await anext(answer, None)
                if chunks is None:
                    break
                watch.mark(chunks[0].elapsed)
                usage = chunks[-1].usage
                self._check_engine(hop, chunks[0].engine)
                yield chunks
        finally:
            await answer.aclose()
            self._generated = self._generated.plus(usage)
            self._record(hop, watch, usage)

    def _client(self, hop: Hop) -> EngineClient:
        return RetryingEngine(self._lease.release.clients[hop.engine])

    def _check_engine(self, hop: Hop, engine: str) -> None:
        """Throw an answer away that is signed by an engine of another release: it must never be mixed in."""
        routed = self.release.engines[hop.engine]
        if not routed.startswith(engine):
            message = f"step {hop.step!r} of release {self.release.number} was answered by engine {engine}"
            raise WrongEngine(f"{message}, not by {routed[:SHORT]}; please report this")

    def _record(self, hop: Hop, watch: _Stopwatch, usage: Usage) -> None:
        engine = self.release.engines[hop.engine]
        duration = watch.elapsed
        first = duration if watch.first is None else watch.first
        record = HopRecord(
            step=hop.step,
            engine=engine,
            usage=usage,
            queue_ms=max(0.0, first - watch.in_engine) * 1000.0,
            ttft_ms=first * 1000.0,
            duration_ms=duration * 1000.0,
        )
        self.hops.append(record)
        self._meter.record(engine, usage)

    @asynccontextmanager
    async def _until_deadline(self, hop: Hop) -> AsyncIterator[None]:
        deadline = self._lease.chain.deadline
        left = deadline - (self._clock.now() - self._begun)
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError as error:
            message = f"the chain's deadline of {deadline:g} s passed in step {hop.step!r}"
            raise DeadlineExceeded(message) from error
