"""An encoder as an engine: ``transformers`` in the replica's own process, one call at a time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from ray import serve
from ray.serve import Application
from transformers import AutoModel, AutoTokenizer

from runtime.clock import SystemClock
from runtime.core.metering.ledger import EndedHop, Purpose
from runtime.core.metering.series import Family
from runtime.core.metering.usage import Usage
from runtime.core.model_set.digest import canonical
from runtime.core.model_set.engines import TransformersEngineSpec
from runtime.core.swap.phase import EnginePhase, Stage
from runtime.engines.chunks import run_once
from runtime.engines.fake import checked_choices, checked_input
from runtime.engines.port import Body, Chunk, Classification, Embeddings, WarmResult
from runtime.engines.tally import TAG, Tally, tag_of
from runtime.errors import InvalidRequest
from runtime.serve.garbage import leave_startup_alone
from runtime.serve.hosts.replica import EngineReplica
from runtime.serve.loading.board import reporting

_CHOICES_KEPT = 256
"""How many sets of choices keep the vectors of their examples."""

_CHARACTERS_PER_TOKEN = 256
"""What is longer than this for each token that is read is cut first: to split a megabyte takes seconds."""


class TransformersEngine:
    """Mean-pooled, normalised sentence vectors; a choice is the one with the nearest example.

    The vectors of a route's examples are computed once per replica, by its warm-up, or before the first call
    if it had none. Their tokens are then counted as a warm-up's: no request asked for them.
    """

    def __init__(self, spec: TransformersEngineSpec, location: str) -> None:
        self._spec = spec
        self._location = location
        # One thread: torch uses the cores it may by itself, calls keep their order, and a tokenizer may not
        # be used by two threads at once.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._tally = Tally(SystemClock())
        self._tokens = 0
        """What the work that the thread does now has read; of the thread alone."""
        self._working: set[asyncio.Task[tuple[Any, Usage]]] = set()
        self._choices: OrderedDict[bytes, dict[str, torch.Tensor]] = OrderedDict()

    async def load(self) -> None:
        """Read tokenizer and weights."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    def _load(self) -> None:
        torch.set_num_threads(1)
        revision = self._spec.revision
        self._tokenizer = AutoTokenizer.from_pretrained(self._location, revision=revision)
        self._model = AutoModel.from_pretrained(self._location, revision=revision, use_safetensors=True)
        self._model.eval()

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:  # noqa: ARG002 - the port's form
        """Refuse: an encoder does not generate."""
        raise InvalidRequest("an encoder cannot generate text", param="model")
        yield []

    async def classify(self, body: Body) -> Classification:
        """Return the choice with the example nearest to the input, by cosine."""
        text, choices = checked_choices(body)
        begun = time.perf_counter()
        if canonical(choices) not in self._choices:
            tag = tag_of(body)._replace(hop="", request="", tenant="", key="", purpose=Purpose.WARMUP)
            await self._run({TAG: tag}, self._examples, choices)
        (choice, scores), usage = await self._run(body, self._classify, text, choices)
        return Classification(choice, scores, usage, time.perf_counter() - begun)

    async def embed(self, body: Body) -> Embeddings:
        """Return one vector of unit length per text."""
        texts = checked_input(body)
        begun = time.perf_counter()
        vectors, usage = await self._run(body, self._embed, texts)
        return Embeddings(vectors, usage, time.perf_counter() - begun)

    async def _run(self, body: Body, work: Any, *args: Any) -> tuple[Any, Usage]:
        """Run ``work`` in the engine's thread. It ends, and is counted, also if the caller has gone."""
        running = asyncio.create_task(self._counting(body, work, *args))
        self._working.add(running)
        running.add_done_callback(self._working.discard)
        return await asyncio.shield(running)

    async def _counting(self, body: Body, work: Any, *args: Any) -> tuple[Any, Usage]:
        with self._tally.call(body) as count:
            loop = asyncio.get_running_loop()
            result, count.usage = await loop.run_in_executor(self._thread, self._measured, work, *args)
            return result, count.usage

    def _measured(self, work: Any, *args: Any) -> tuple[Any, Usage]:
        self._tokens = 0
        return work(*args), Usage(prompt=self._tokens)

    def _classify(self, text: str, choices: Mapping[str, list[str]]) -> tuple[str, dict[str, float]]:
        examples = self._examples(choices)
        vector = self._encode([text])[0]
        scores = {name: float((vectors @ vector).max()) for name, vectors in examples.items()}
        return max(scores, key=scores.__getitem__), scores

    def _examples(self, choices: Mapping[str, list[str]]) -> dict[str, torch.Tensor]:
        key = canonical(choices)
        if key not in self._choices:
            self._choices[key] = {name: self._encode(list(texts)) for name, texts in choices.items()}
            if len(self._choices) > _CHOICES_KEPT:
                self._choices.popitem(last=False)
        self._choices.move_to_end(key)
        return self._choices[key]

    def _embed(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encode(texts).tolist()
        return vectors

    def _encode(self, texts: list[str]) -> torch.Tensor:
        """Return unit vectors of shape (texts, dimensions)."""
        batch = self._tokenizer(
            [self._cut(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self._spec.max_length,
            return_tensors="pt",
        )
        mask = batch["attention_mask"]
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        self._tokens += int(mask.sum())
        return torch.nn.functional.normalize(pooled, dim=1)

    async def count(self, operation: str, body: Body) -> int:
        """Return how many tokens a call would read; the examples of choices are read by the warm-up."""
        text = checked_choices(body)[0] if operation == "classify" else " ".join(checked_input(body))
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._length, text)

    def _length(self, text: str) -> int:
        tokens = self._tokenizer([self._cut(text)], truncation=True, max_length=self._spec.max_length)
        return len(tokens["input_ids"][0])

    def _cut(self, text: str) -> str:
        return text[: self._spec.max_length * _CHARACTERS_PER_TOKEN]

    async def warm(self, operation: str, body: Body) -> WarmResult:
        """Run one call to its end."""
        return await run_once(self, operation, body)

    async def ping(self) -> None:
        """Return: a replica that can be called has loaded."""

    async def sleep(self) -> None:
        """Do nothing: an encoder holds no cache."""

    async def wake(self) -> None:
        """Do nothing."""

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
        """Return nothing: ``transformers`` counts nothing."""
        return []

    async def unload(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class TransformersEngineReplica(EngineReplica):
    """Loads when it is constructed, so that a replica that runs can answer."""

    async def __init__(self, spec: TransformersEngineSpec, location: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._hosted = TransformersEngine(spec, location)
        with reporting(lambda: Stage(EnginePhase.LOADING)):
            await self._hosted.load()
        leave_startup_alone()


def build(spec: TransformersEngineSpec, location: str) -> Application:
    """Return the application of an encoder whose weights are at ``location``."""
    options = {
        "max_ongoing_requests": 256,
        "max_constructor_retry_count": 1,
        "graceful_shutdown_wait_loop_s": 0.1,
        **spec.deployment_config,
    }
    return serve.deployment(TransformersEngineReplica, name="engine", **options).bind(spec, location)
