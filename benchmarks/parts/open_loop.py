"""The open-loop load generator of the demo and the benchmarks.

Requests start when they are due, whether or not earlier ones have ended, so a server that stalls is not
spared. Arrivals are Poisson, or even with some jitter, with a seed; they may repeat. Every request's times
and tokens are kept as they were.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import orjson

from benchmarks.parts.streams import DONE, chat_body, read_events

SERVED_BY = "x-served-by"
"""Header in which what Interlock is compared with says by number which version of it has answered."""

_RELEASE = "x-interlock-release"

_BYTES_PER_TOKEN = 200
"""What a chunk of a stream comes to, roughly: where in a stream a client may leave."""


@dataclass(frozen=True)
class Plan:
    """What load to offer."""

    url: str
    model: str
    questions: Sequence[str]
    rate: float
    """Requests per second."""
    stream_share: float = 0.75
    abandon_share: float = 0.0
    """Share of the streams that the client leaves at a random byte."""
    max_tokens: int = 64
    seed: int = 1
    even: bool = False
    """Whether requests come evenly, give or take half a gap, and not as they do by chance: in bursts."""
    cycle_s: float | None = None
    """Seconds after which Poisson arrivals and questions repeat: windows of that length have the same bursts.

    In each are as many requests as ``rate`` makes of it, rounded, and one at least.
    """
    timeout_s: float = 120.0
    instructions: str | None = None
    """A system prompt, for servers that have none of their own."""


@dataclass
class Record:
    """One request as the client saw it; times are ``perf_counter`` seconds."""

    stream: bool
    sent: float
    first: float | None = None
    """Arrival of the first piece of the answer."""
    pieces: list[float] = field(default_factory=list)
    """Arrival of each piece of a stream that was read to its end."""
    ended: float | None = None
    abandoned: bool = False
    """The client left on purpose: it knows neither hops nor usage."""
    release: int | None = None
    """Which release, or version of what it is compared with, says that it answered."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    hops: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from sending to the first piece of a streamed answer."""
        return (self.first - self.sent) * 1000.0 if self.stream and self.first is not None else None


@dataclass(frozen=True)
class _Drawn:
    """A request as the seed has it."""

    question: str
    stream: bool
    leave_after: int | None
    """After how many bytes the client leaves, if it does."""


class LoadGenerator:
    """Offers a plan's load until it is stopped, then waits for what is still open."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.records: list[Record] = []
        self._random = random.Random(plan.seed)  # noqa: S311 - arrivals, not secrets
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Send requests until ``stop``, then wait for the open ones."""
        timeout = aiohttp.ClientTimeout(total=self.plan.timeout_s)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as requests,
        ):
            begun = time.perf_counter()
            for due in self._arrivals():
                await self._until(begun + due)
                if self._stopping.is_set():
                    return
                requests.create_task(self._request(session, self._drawn()))

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    @property
    def open(self) -> int:
        """How many requests are under way."""
        return sum(record.ended is None for record in self.records)

    def _arrivals(self) -> Iterator[float]:
        """Yield when requests are due, in seconds since the begin."""
        if self.plan.cycle_s is not None:
            yield from self._cycles(self.plan.cycle_s)
            return
        due = 0.0
        while True:
            yield due
            due += self._gap()

    def _cycles(self, length: float) -> Iterator[float]:
        """Yield the same arrivals again and again: Poisson's, once it is known how many there are."""
        requests = max(1, round(self.plan.rate * length))
        for number in count():
            self._random.seed(self.plan.seed)
            for due in sorted(self._random.uniform(0.0, length) for _ in range(requests)):
                yield number * length + due

    def _gap(self) -> float:
        """Return the seconds from one arrival to the next."""
        if self.plan.even:
            return self._random.uniform(0.5, 1.5) / self.plan.rate
        return self._random.expovariate(self.plan.rate)

    def _drawn(self) -> _Drawn:
        """Return what is sent next, and what becomes of it."""
        stream = self._random.random() < self.plan.stream_share
        question = self._random.choice(self.plan.questions)
        if not (stream and self._random.random() < self.plan.abandon_share):
            return _Drawn(question, stream, None)
        return _Drawn(question, stream, self._random.randrange(1, self.plan.max_tokens * _BYTES_PER_TOKEN))

    async def _until(self, due: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, due - time.perf_counter())):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _body(self, drawn: _Drawn) -> dict[str, Any]:
        body = chat_body(self.plan.model, drawn.question, self.plan.max_tokens, stream=drawn.stream)
        if self.plan.instructions is not None:
            body["messages"].insert(0, {"role": "system", "content": self.plan.instructions})
        return body

    async def _request(self, session: aiohttp.ClientSession, drawn: _Drawn) -> None:
        body = self._body(drawn)
        record = Record(stream=drawn.stream, sent=time.perf_counter())
        self.records.append(record)
        try:
            async with session.post(f"{self.plan.url}/v1/chat/completions", json=body) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    record.error = f"HTTP {response.status}: {(await response.text())[:300]}"
                    return
                record.release = _release_of(response)
                if drawn.leave_after is not None:
                    await self._leave(response, record, drawn.leave_after)
                elif drawn.stream:
                    await self._read_stream(response, record)
                else:
                    await self._read_whole(response, record)
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            record.error = f"{type(error).__name__}: {error}"
        finally:
            record.ended = time.perf_counter()

    async def _read_whole(self, response: aiohttp.ClientResponse, record: Record) -> None:
        answer = orjson.loads(await response.read())
        record.first = time.perf_counter()
        _take_trailer(answer, record)

    async def _leave(self, response: aiohttp.ClientResponse, record: Record, after: int) -> None:
        """Go away after so many bytes of the stream, in the middle of whatever comes then."""
        record.abandoned = True
        with suppress(asyncio.IncompleteReadError):  # the answer is shorter: it is left at its end
            await response.content.readexactly(after)
        response.close()

    async def _read_stream(self, response: aiohttp.ClientResponse, record: Record) -> None:
        done = False
        async for events in read_events(response):
            record.pieces.append(time.perf_counter())
            record.first = record.pieces[0]
            for event in events:
                if event == DONE:
                    done = True
                elif any(word in event for word in _TOLD):
                    _take_trailer(orjson.loads(event), record)
        if not done and record.error is None:
            record.error = "the stream ended without [DONE]"


_TOLD = (b'"interlock"', b'"error"', b'"hops"', b'"usage":{')
"""What is in those events of a stream that say something of the whole answer."""


def _release_of(response: aiohttp.ClientResponse) -> int | None:
    told = response.headers.get(_RELEASE) or response.headers.get(SERVED_BY)
    return int(told) if told is not None else None


def _take_trailer(answer: dict[str, Any], record: Record) -> None:
    """Read what one of the last chunks, or the whole answer, says of itself."""
    if "error" in answer:
        record.error = str(answer["error"].get("message"))
        return
    if answer.get("usage"):
        record.prompt_tokens = answer["usage"]["prompt_tokens"]
        record.completion_tokens = answer["usage"]["completion_tokens"]
    told = answer.get("interlock") or answer
    record.hops = told.get("hops", record.hops)
    if told.get("release", record.release) != record.release:
        record.error = f"header says release {record.release}, body says {told['release']}"
