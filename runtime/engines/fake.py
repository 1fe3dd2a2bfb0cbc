"""A scripted engine: latency, tokens and faults as its spec says, and exact counts.

It is public, so that what is built around engines can be tested without one, in virtual time too.
It passes the same contract as the real engines; it never stands in for them in a demo, an
end-to-end test or a published number.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from runtime.clock import Clock, SystemClock
from runtime.core.metering.ledger import EndedHop
from runtime.core.metering.series import Family, counted, measured
from runtime.core.metering.usage import UNCOUNTED, Usage
from runtime.core.model_set.engines import FakeEngineSpec
from runtime.core.requests.sampling import UNASKED_CAP
from runtime.engines.chunks import pack, run_once
from runtime.engines.port import TRACE, Body, Chunk, Classification, Embeddings, WarmResult
from runtime.engines.tally import Tally
from runtime.errors import EngineLoadError, EngineUnavailable, InvalidRequest, WarmupError

_DIMENSIONS = 8

_GRAMMARS = ("response_format", "structured_outputs", "tools")
"""Members of a body that give the answer a form."""

_WARMING = ContextVar("warming", default=False)
"""Set in a warm-up call: a request that comes while it runs is still one to a cold engine."""


def count_tokens(text: str) -> int:
    """Return how many tokens the fake's tokenizer makes of ``text``: its words."""
    return len(text.split())


class FakeEngine:
    """An engine that follows ``script``. Every wait is on the event loop, so virtual time works."""

    def __init__(self, script: FakeEngineSpec, clock: Clock | None = None) -> None:
        self._script = script
        self._clock = clock or SystemClock()
        self._tally = Tally(self._clock)
        self._reply = script.reply
        self.name = uuid.uuid4().hex
        """Identifies it, as a replica's process does."""
        self.loaded = False
        self.asleep = False
        self.warmed = 0
        """How many warm-up calls have run to their end."""
        self.seen_grammars: list[dict[str, Any]] = []
        """What gave answers their form, each once: a real engine compiles a grammar for it the first time."""
        self.traces: list[Mapping[str, str]] = []
        """The trace contexts that calls came with."""
        self.served_cold = 0
        """Calls other than warm-ups that came before the first warm-up had ended."""

    async def load(self) -> None:
        """Wait as long as the script says, then be loaded, or fail."""
        await asyncio.sleep(self._script.load)
        if self._script.fail == "load":
            raise EngineLoadError("the script says that loading fails")
        self.loaded = True

    async def warm(self, operation: str, body: Body) -> WarmResult:
        """Run one call to its end."""
        if self._script.fail == "warm":
            raise WarmupError("the script says that warming fails")
        token = _WARMING.set(True)
        try:
            result = await run_once(self, operation, body)
        finally:
            _WARMING.reset(token)
        self.warmed += 1
        return result

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield the scripted reply, a token at a time."""
        prompt = self._check_generate(body)
        self._see_grammar(body)
        self._begin(body)
        begun = self._clock.now()
        with self._tally.call(body) as count, self._receipt(prompt) as receipt:
            count.usage = Usage(prompt)
            room = self._script.context_length - prompt
            tokens = min(body.get("max_tokens") or body.get(UNASKED_CAP) or room, room, self._script.tokens)
            choices = int(body.get("n") or 1)
            for position in range(tokens):
                await self._pause(position)
                count.usage = Usage(prompt, choices * (position + 1))
                receipt.extend([1] * choices)
                if body.get("stream"):
                    delta = self._choices(choices, position + 1, tokens, "delta", f"{self._reply}{position} ")
                    yield [pack(delta, count.usage, self._clock.now() - begun)]
            if not body.get("stream"):
                text = "".join(f"{self._reply}{n} " for n in range(tokens))
                message = self._choices(choices, tokens, tokens, "message", text)
                yield [pack(message, count.usage, self._clock.now() - begun)]

    @contextmanager
    def _receipt(self, prompt: int) -> Iterator[list[int]]:
        """Write down what a call has read, and how many tokens were appended, when it ends."""
        generated: list[int] = []
        try:
            yield generated
        finally:
            if self._script.receipts is not None:
                with Path(self._script.receipts).open("a") as receipts:
                    receipts.write(f"{prompt} {len(generated)}\n")

    async def _pause(self, position: int) -> None:
        await asyncio.sleep(self._script.inter_token if position else self._script.time_to_first_token)
        if not self.loaded:
            raise EngineUnavailable("the engine was unloaded under a call")
        if self.asleep:
            raise EngineUnavailable("the engine is asleep")
        if self._script.fail == "generate":
            raise EngineUnavailable("the script says that generating fails")

    def _begin(self, body: Body) -> None:
        if body.get(TRACE):
            self.traces.append(body[TRACE])
        if not self.warmed and not _WARMING.get():
            self.served_cold += 1

    def _see_grammar(self, body: Body) -> None:
        grammar = {name: body[name] for name in _GRAMMARS if body.get(name) is not None}
        if grammar and grammar not in self.seen_grammars:
            self.seen_grammars.append(grammar)

    def _choices(self, choices: int, done: int, tokens: int, kind: str, text: str) -> dict[str, Any]:
        reason, message = "length" if done == tokens else None, {"role": "assistant", "content": text}
        return {
            "choices": [{"index": n, kind: message, "finish_reason": reason} for n in range(choices)],
        }

    def _check_generate(self, body: Body) -> int:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("messages is missing or empty", param="messages")
        for name in ("temperature", "top_p"):
            if not isinstance(body.get(name, 1.0), int | float):
                raise InvalidRequest(f"{name} must be a number", param=name)
        prompt = sum(count_tokens(str(message.get("content"))) for message in messages)
        prompt = min(prompt, body.get("truncate_prompt_tokens") or prompt)
        if prompt >= self._script.context_length:
            reason = f"the prompt has {prompt} tokens; the context length is {self._script.context_length}"
            raise InvalidRequest(reason, param="messages", code="context_length_exceeded")
        max_tokens = body.get("max_tokens") or 0
        if prompt + max_tokens > self._script.context_length:
            reason = (
                f"the prompt has {prompt} tokens, and max_tokens asks for {max_tokens}; "
                f"the context length is {self._script.context_length}"
            )
            raise InvalidRequest(reason, param="messages", code="context_length_exceeded")
        return prompt

    async def classify(self, body: Body) -> Classification:
        """Return the choice whose examples share most words with the input."""
        text, choices = checked_choices(body)
        begun, usage = self._clock.now(), Usage(prompt=count_tokens(text))
        self._begin(body)
        with self._tally.call(body) as count, self._receipt(usage.prompt):
            count.usage = usage
            await self._pause(0)
            words = set(text.lower().split())
            scores = {name: _overlap(words, examples) for name, examples in choices.items()}
            return Classification(
                max(scores, key=scores.__getitem__), scores, usage, self._clock.now() - begun
            )

    async def embed(self, body: Body) -> Embeddings:
        """Return unit vectors that depend on the text alone."""
        texts = checked_input(body)
        begun, usage = self._clock.now(), Usage(prompt=sum(count_tokens(text) for text in texts))
        self._begin(body)
        with self._tally.call(body) as count, self._receipt(usage.prompt):
            count.usage = usage
            await self._pause(0)
            return Embeddings([_vector(text) for text in texts], usage, self._clock.now() - begun)

    async def count(self, operation: str, body: Body) -> int:
        """Return how many words a call would read."""
        if operation == "classify":
            return count_tokens(checked_choices(body)[0])
        return self._check_generate(body)

    async def ping(self) -> None:
        """Answer if the engine is loaded, after as long as the script says."""
        await asyncio.sleep(self._script.ping)
        if not self.loaded:
            raise EngineUnavailable("the engine is not loaded")

    async def sleep(self) -> None:
        """Be asleep. Under a call it fails, where a real engine may hang or crash."""
        if self._tally.in_flight:
            raise EngineUnavailable(f"the engine cannot sleep under {self._tally.in_flight} calls")
        self.asleep = True
        await asyncio.sleep(self._script.sleep)

    async def wake(self) -> None:
        """Be awake."""
        if self.asleep:
            await asyncio.sleep(self._script.wake)
            self.asleep = False
            self._reply = self._script.slept_reply or self._reply

    async def idle(self) -> bool:
        """Say whether nothing is in flight."""
        return self._tally.in_flight == 0

    async def metered(self) -> Usage:
        """Return every token so far."""
        return self._tally.usage

    async def spent(self, hop: str) -> Usage | None:
        """Return what a call has spent, once it has ended."""
        return await self._tally.spent(hop)

    async def ended(self, after: int, age: float, limit: int) -> list[EndedHop]:
        """Return calls that have ended."""
        return self._tally.ended(after, age, limit)

    async def metrics(self) -> list[Family]:
        """Return its counts under vLLM's names, so that what reads those can be tried without vLLM."""
        usage = self._tally.usage
        return [
            counted("vllm:prompt_tokens", "Prompt tokens.", [({}, float(usage.prompt))]),
            counted("vllm:generation_tokens", "Generated tokens.", [({}, float(usage.completion))]),
            measured(UNCOUNTED, "Nothing: it counts by itself.", [({}, 0.0)]),
            measured("vllm:num_requests_running", "Calls under way.", [({}, float(self._tally.in_flight))]),
        ]

    async def unload(self) -> None:
        """Be gone."""
        self.loaded = False


def _overlap(words: set[str], examples: list[str]) -> float:
    return max(len(words & set(example.lower().split())) / max(len(words), 1) for example in examples)


def _vector(text: str) -> list[float]:
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:_DIMENSIONS]]
    length = sum(value * value for value in raw) ** 0.5
    return [value / length for value in raw]


def checked_input(body: Body) -> list[str]:
    """Return ``input`` as a list of texts. Raises InvalidRequest."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("input must be a text or a list of texts", param="input")
    return texts


def checked_choices(body: Body) -> tuple[str, Mapping[str, list[str]]]:
    """Return ``input`` and ``choices`` of a body to classify. Raises InvalidRequest."""
    text = checked_input(body)[0]
    choices = body.get("choices")
    if not isinstance(choices, Mapping) or not choices or not all(choices.values()):
        raise InvalidRequest("choices must map each name to example texts", param="choices")
    return text, choices
