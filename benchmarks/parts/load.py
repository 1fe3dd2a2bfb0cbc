"""The load generators of the demo and all benchmarks: one open-loop, one closed-loop.

Open loop: requests start when they are due, whether or not earlier ones have ended, so a server that stalls
is not spared. Arrivals are Poisson, or even with some jitter, with a seed; they may repeat. Closed loop: so
many streams are always in flight, which says what a server can do. Every request's times and tokens are kept
as they were.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, Generic, TypeVar

import aiohttp
import orjson

Reading = TypeVar("Reading")
"""What a benchmark reads when the window of a closed loop opens and closes."""

DONE = b"[DONE]"
"""The data of a stream's last event."""

SERVED_BY = "x-served-by"
"""Header in which what Interlock is compared with says by number which version of it has answered."""

_RELEASE = "x-interlock-release"

_DATA = b"data: "

_AFTER_ERROR_S = 0.1
"""What a stream of the closed loop waits after an error: a dead server must not be hammered."""

_NUMBERS = 16
"""Numbers in a prompt of the closed loop: with the rest of it some 80 tokens."""

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
        body = _chat_body(self.plan.model, drawn.question, self.plan.max_tokens, stream=drawn.stream)
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


def _chat_body(model: str, prompt: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    """Return a request for so many tokens exactly, without chance."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": stream,
    }
    return body | ({"stream_options": {"include_usage": True}} if stream else {})


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Yield the data of a stream's events, those that have arrived together in one list."""
    rest = b""
    async for piece in response.content.iter_any():
        *whole, rest = (rest + piece).split(b"\n\n")
        events = [event[len(_DATA) :] for event in whole if event.startswith(_DATA)]
        if events:
            yield events


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


# -- closed loop ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClosedPlan:
    """So many streams that are always in flight, each of so many tokens, each on a prompt of its own."""

    url: str
    model: str
    streams: int
    tokens: int
    seconds: float
    """How long is measured, once each stream has ended its first answer."""
    seed: str = "1"
    begin_within: float = 0.0
    """Each stream begins at random within so many seconds. Of a server whose tokens come at fixed times,
    those that begin together have theirs together ever after; users know nothing of each other."""
    timeout_s: float = 300.0


@dataclass
class Answer:
    """One streamed answer as the client saw it; times are ``perf_counter`` seconds."""

    sent: float
    asked: int
    """How many tokens it was to have."""
    pieces: list[float] = field(default_factory=list)
    """When each piece of text has arrived."""
    tokens: int = 0
    """Completion tokens by the server's own count."""
    done: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Window(Generic[Reading]):
    """What was seen while all streams were in flight, from ``opened`` to ``closed``."""

    opened: float
    closed: float
    answers: list[Answer]
    readings: tuple[Reading, Reading]
    """What was read at both edges."""
    generator_cpu: float
    """Share of one core that the generator itself has used."""

    @property
    def errors(self) -> list[str]:
        """What went wrong, of all answers, also those outside of the window."""
        return [answer.error for answer in self.answers if answer.error is not None]

    @property
    def tokens_per_second(self) -> float:
        """Tokens that arrived within the window, by its length; a piece of text may be of several."""
        tokens = sum(
            sum(map(self._holds, answer.pieces)) * (answer.tokens or answer.asked) / len(answer.pieces)
            for answer in self.answers
            if answer.pieces
        )
        return tokens / (self.closed - self.opened)

    @property
    def ttft_ms(self) -> list[float]:
        """From sending to the first piece of text, of requests that were sent within the window."""
        sent = (answer for answer in self.answers if answer.pieces and self._holds(answer.sent))
        return [(answer.pieces[0] - answer.sent) * 1000.0 for answer in sent]

    @property
    def gaps_ms(self) -> list[float]:
        """Inter-token latency: between one piece of text and the next, both within the window."""
        return [
            (late - early) * 1000.0
            for answer in self.answers
            for early, late in pairwise(answer.pieces)
            if self._holds(early) and self._holds(late)
        ]

    def _holds(self, moment: float) -> bool:
        return self.opened <= moment <= self.closed


class ClosedLoop(Generic[Reading]):
    """Keeps a plan's streams in flight and measures a window of them.

    The first answer of each stream is cut short at random, so that streams do not go in step, and the
    window opens when the last of these has ended. ``read`` is called at both of its edges.
    """

    def __init__(self, plan: ClosedPlan, read: Callable[[], Reading]) -> None:
        self.plan = plan
        self._read = read
        self._answers: list[Answer] = []
        self._cold = plan.streams
        self._warm, self._closed = asyncio.Event(), False

    async def run(self) -> Window[Reading]:
        """Return the window, once the streams that were in flight at its end have ended, too."""
        timeout = aiohttp.ClientTimeout(total=self.plan.timeout_s)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as streams,
        ):
            for stream in range(self.plan.streams):
                streams.create_task(self._follow(session, stream))
            await self._warm.wait()
            before, opened, cpu = self._read(), time.perf_counter(), time.process_time()
            await asyncio.sleep(self.plan.seconds)
            spent, closed, after = time.process_time() - cpu, time.perf_counter(), self._read()
            self._closed = True
        return Window(opened, closed, self._answers, (before, after), spent / (closed - opened))

    async def _follow(self, session: aiohttp.ClientSession, stream: int) -> None:
        chance = random.Random(f"{self.plan.seed}/{stream}")  # noqa: S311 - prompts, not secrets
        await asyncio.sleep(chance.uniform(0.0, self.plan.begin_within))
        await self._ask(session, _prompt(chance), chance.randint(1, self.plan.tokens))
        self._cold -= 1
        if not self._cold:
            self._warm.set()
        while not self._closed:
            await self._ask(session, _prompt(chance), self.plan.tokens)

    async def _ask(self, session: aiohttp.ClientSession, prompt: str, tokens: int) -> None:
        body = _chat_body(self.plan.model, prompt, tokens, stream=True)
        answer = Answer(time.perf_counter(), tokens)
        self._answers.append(answer)
        try:
            async with session.post(f"{self.plan.url}/v1/chat/completions", json=body) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    answer.error = f"HTTP {response.status}: {(await response.text())[:300]}"
                    return
                async for events in read_events(response):
                    take_events(events, answer)
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        else:
            answer.error = answer.error or _shortfall(answer)
        finally:
            if answer.error is not None:
                await asyncio.sleep(_AFTER_ERROR_S)


def _prompt(chance: random.Random) -> str:
    """Return a prompt that shares no beginning with another, so that no prefix cache knows it."""
    numbers = ", ".join(str(chance.randrange(1000)) for _ in range(_NUMBERS))
    return f"{numbers}: tell a story in which these numbers matter."


def take_events(events: Sequence[bytes], answer: Answer) -> None:
    """Note what events of a stream, which have just arrived together, say of its answer."""
    arrived = time.perf_counter()
    for event in events:
        if event == DONE:
            answer.done = True
            continue
        told = orjson.loads(event)
        if "error" in told:
            answer.error = str(told["error"])
            return
        if told.get("usage"):
            answer.tokens = told["usage"]["completion_tokens"]
        if any(choice["delta"].get("content") for choice in told["choices"]):
            answer.pieces.append(arrived)


def _shortfall(answer: Answer) -> str | None:
    if not answer.done:
        return "the stream ended without [DONE]"
    if answer.tokens != answer.asked:
        return f"asked for {answer.asked} tokens, got {answer.tokens}"
    return None


def percentile(samples: Sequence[float], share: float) -> float | None:
    """Return the ``share`` percentile (0 to 1) of raw samples, the nearest rank; None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
