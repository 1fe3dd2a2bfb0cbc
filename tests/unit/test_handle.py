"""Calls over Serve's handle."""

from contextvars import ContextVar

from runtime.core.usage import Usage
from runtime.serve.replica import HandleEngine

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
