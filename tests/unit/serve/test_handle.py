"""Calls over Serve's handle."""

import asyncio
from contextvars import ContextVar

import pytest

from runtime.core.metering.usage import Usage
from runtime.errors import EngineUnavailable
from runtime.serve.hosts.replica import HandleEngine

REQUEST = ContextVar("request", default=None)
"""In whose name a handle is called, as Serve knows it."""


class Handle:
    """Serve's handle, which notes in whose name it was called."""

    def __init__(self):
        self.callers = []

    def options(self, **_):
        return self

    def broadcast(self, *_):
        self.callers.append(REQUEST.get())
        return self

    async def results_async(self):
        return [None, Usage(3, 4)]


# What a broken-off call has spent is not asked in the name of its request, with which Serve would cancel it.
async def test_what_was_spent_is_nobodys_call():
    handle = Handle()
    REQUEST.set("cancelled")
    assert await HandleEngine(handle).spent("hop") == Usage(3, 4)
    assert handle.callers == [None]


# A replica whose node has gone dark keeps nobody waiting who asks what all of them know; what takes long
# anyway has the limit of who asks for it.
@pytest.mark.parametrize("ask", ["metered", "idle", "spent", "addresses", "metrics", "collect"])
async def test_a_replica_that_cannot_be_reached(ask):
    handle = Handle()
    handle.results_async = asyncio.Event().wait
    engine = HandleEngine(handle)
    calls = {
        "spent": lambda: engine.spent("hop"),
        "addresses": engine.addresses,
        "metrics": engine.metrics,
        "collect": lambda: engine.collect({}, 1.0, 10),
    }
    with pytest.raises(EngineUnavailable, match="within 10 s"):
        await calls.get(ask, lambda: engine.ask_all(ask))()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await engine.ask_all("warm", "generate", {})
