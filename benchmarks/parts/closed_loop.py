"""The closed-loop load generator: so many streams are always in flight, which says what a server can do.

Every answer's times and tokens are kept as they were.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

import aiohttp
import orjson

from benchmarks.parts.streams import DONE, chat_body, read_events

Reading = TypeVar("Reading")
"""What a benchmark reads when the window of a closed loop opens and closes."""

_AFTER_ERROR_S = 0.1
"""What a stream of the closed loop waits after an error: a dead server must not be hammered."""

_NUMBERS = 16
"""Numbers in a prompt of the closed loop: with the rest of it some 80 tokens."""


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
        body = chat_body(self.plan.model, prompt, tokens, stream=True)
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
