"""One more try where a replica died: Serve gives a call to one replica and does not take it to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from runtime.core.metering.ledger import HopTag
from runtime.core.metering.usage import Usage
from runtime.engines.port import Body, Chunk, Classification, Embeddings, EngineClient
from runtime.engines.tally import TAG
from runtime.errors import EngineLost

_log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Pause before the other try: until Ray knows that a replica is dead, Serve would choose it again."""

_Answer = TypeVar("_Answer")


class RetryingEngine:
    """An engine's client that asks once more if the replica is lost before the first byte of its answer.

    ``retried`` is called before; what it raises ends the call.

    After the first byte the client has seen a part of one answer, and the start of another does not
    continue it: then the error is the client's to handle.
    """

    def __init__(
        self, engine: EngineClient, retried: Callable[[EngineLost], Awaitable[None]] | None = None
    ) -> None:
        self._engine = engine
        self._retried = retried or _unnoticed
        self.tag: HopTag | None = None
        """The tag of the last attempt. Each has an id of its own: a lost replica may go on counting."""

    def _attempt(self, body: Body) -> Body:
        if TAG not in body:
            return body
        if self.tag is None:
            self.tag = HopTag.read(body[TAG])
            return body
        self.tag = self.tag._replace(hop=f"{self.tag.hop}-again")
        return {**body, TAG: self.tag.plain()}

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield what a replica generates.

        Raises:
            EngineLost: two replicas are gone, or one after its first byte.

        """
        for retry in (True, False):
            begun = False
            answer = self._engine.generate(self._attempt(body))
            try:
                async for chunks in answer:
                    begun = True
                    yield chunks
            except EngineLost as error:
                if begun or not retry:
                    raise
                _log.warning("asking another replica: %s", error)
                await self._retried(error)
            else:
                return
            finally:
                await answer.aclose()
            await asyncio.sleep(RETRY_SECONDS)

    async def classify(self, body: Body) -> Classification:
        """Classify on a replica."""
        return await _twice(lambda: self._engine.classify(self._attempt(body)), self._retried)

    async def embed(self, body: Body) -> Embeddings:
        """Embed on a replica."""
        return await _twice(lambda: self._engine.embed(body))

    async def ping(self) -> None:
        """Return once a replica has answered."""
        await _twice(self._engine.ping)

    async def count(self, operation: str, body: Body) -> int:
        """Return how many prompt tokens a call would read."""
        return await _twice(lambda: self._engine.count(operation, body))

    async def spent(self, hop: str) -> Usage | None:
        """Return what a call has spent."""
        return await _twice(lambda: self._engine.spent(hop))


async def _unnoticed(_error: EngineLost) -> None:
    """Do nothing more: the log has it that another replica is asked."""


async def _twice(
    call: Callable[[], Awaitable[_Answer]], retried: Callable[[EngineLost], Awaitable[None]] = _unnoticed
) -> _Answer:
    try:
        return await call()
    except EngineLost as error:
        _log.warning("asking another replica: %s", error)
        await retried(error)
    await asyncio.sleep(RETRY_SECONDS)
    return await call()
