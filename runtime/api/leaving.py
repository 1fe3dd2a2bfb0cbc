"""Clients that go away while they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def while_client_stays(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Answer a request; stop all work for it as soon as the client goes away, and wait for its end."""
    answer = asyncio.create_task(answering)
    gone = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()
    finally:
        for task in (answer, gone):
            task.cancel()
        # The answer releases what it holds in its own cleanup: wait for that, also when this is cancelled.
        await asyncio.shield(asyncio.gather(answer, gone, return_exceptions=True))


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
