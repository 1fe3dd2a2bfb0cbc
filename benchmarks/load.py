"""One open-loop load generator for the demo and all benchmarks.

Requests start when they are due, whether or not earlier ones have ended, so a server that stalls is
not spared. Arrivals are Poisson with a seed; every request's times and tokens are kept as they were.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

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
    timeout_s: float = 120.0


@dataclass
class Record:
    """One request as the client saw it; times are ``perf_counter`` seconds."""

    stream: bool
    sent: float
    first: float | None = None
    """Arrival of the first piece of the answer."""
    ended: float | None = None
    abandoned: bool = False
    """The client left on purpose: it knows neither hops nor usage."""
    release: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    hops: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from sending to the first piece of a streamed answer."""
        return (self.first - self.sent) * 1000.0 if self.stream and self.first is not None else None


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
            due = time.perf_counter()
            while not self._stopping.is_set():
                requests.create_task(self._request(session))
                due += self._random.expovariate(self.plan.rate)
                await self._until(due)

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    @property
    def open(self) -> int:
        """How many requests are under way."""
        return sum(record.ended is None for record in self.records)

    async def _until(self, due: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, due - time.perf_counter())):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _body(self, *, stream: bool) -> dict[str, Any]:
        question = self._random.choice(self.plan.questions)
        body = {
            "model": self.plan.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self.plan.max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": stream,
        }
        return body | ({"stream_options": {"include_usage": True}} if stream else {})

    async def _request(self, session: aiohttp.ClientSession) -> None:
        stream = self._random.random() < self.plan.stream_share
        body = self._body(stream=stream)
        record = Record(stream=stream, sent=time.perf_counter())
        abandoned = stream and self._random.random() < self.plan.abandon_share
        leave_after = self._random.randrange(1, self.plan.max_tokens * _BYTES_PER_TOKEN) if abandoned else 0
        self.records.append(record)
        try:
            async with session.post(f"{self.plan.url}/v1/chat/completions", json=body) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    record.error = f"HTTP {response.status}: {(await response.text())[:300]}"
                    return
                record.release = int(response.headers["x-interlock-release"])
                if abandoned:
                    await self._leave(response, record, leave_after)
                elif stream:
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
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            if record.first is None:
                record.first = time.perf_counter()
            if line.startswith(b"data: [DONE]"):
                done = True
            elif b'"interlock"' in line or b'"error"' in line:
                _take_trailer(orjson.loads(line[6:]), record)
        if not done and record.error is None:
            record.error = "the stream ended without [DONE]"


def _take_trailer(answer: dict[str, Any], record: Record) -> None:
    """Read what the last chunk, or the whole answer, says of itself."""
    if "error" in answer:
        record.error = str(answer["error"].get("message"))
        return
    record.prompt_tokens = answer["usage"]["prompt_tokens"]
    record.completion_tokens = answer["usage"]["completion_tokens"]
    record.hops = answer["interlock"]["hops"]
    if answer["interlock"]["release"] != record.release:
        record.error = f"header says release {record.release}, body says {answer['interlock']['release']}"


def percentile(samples: Sequence[float], share: float) -> float | None:
    """Return the ``share`` percentile (0 to 1) of raw samples, the nearest rank; None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
