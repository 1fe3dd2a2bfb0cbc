"""Ending a call where it runs once its caller's time is up.

The caller ends it, too, and before: it knows which step of which chain ran out. But a caller whose
process has died ends nothing, and its call would hold the engine's batch until its last token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from runtime.engines.port import WITHIN, Body, Chunk, Classification, EngineClient
from runtime.engines.time_limit import TimeLimit
from runtime.errors import DeadlineExceeded

GRACE_SECONDS = 0.1
"""How much later than its caller a host ends a call, so that of the two it is the caller who does."""

_TIME_IS_UP = "the time that the caller gave the engine is up"


async def generate(engine: EngineClient, body: Body) -> AsyncGenerator[list[Chunk], None]:
    """Yield what ``engine`` generates. Raises DeadlineExceeded once the caller's time is up."""
    body, limit = _taken(body)
    answer = engine.generate(body)
    try:
        while True:
            with limit:
                chunks = await anext(answer, None)
            if chunks is None:
                return
            yield chunks
    except TimeoutError as error:
        raise DeadlineExceeded(_TIME_IS_UP) from error
    finally:
        limit.close()
        await answer.aclose()


async def classify(engine: EngineClient, body: Body) -> Classification:
    """Classify on ``engine``. Raises DeadlineExceeded once the caller's time is up."""
    body, limit = _taken(body)
    try:
        with limit:
            return await engine.classify(body)
    except TimeoutError as error:
        raise DeadlineExceeded(_TIME_IS_UP) from error
    finally:
        limit.close()


def _taken(body: Body) -> tuple[Body, TimeLimit]:
    """Return what the engine gets of ``body``, and how long its caller waits for it."""
    within = body.get(WITHIN)
    if within is None:
        return body, TimeLimit(None)
    return {key: value for key, value in body.items() if key != WITHIN}, TimeLimit(within + GRACE_SECONDS)
