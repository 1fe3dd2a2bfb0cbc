"""Where a request comes from, as one value: made once when it arrives, and passed on as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.core.requests.keys import OPEN, Caller
from runtime.observe.tracing import UNTRACED, RequestSpan


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks, since when, and under which span; ``core.requests.ask`` has what is asked for."""

    id: str
    """``x-request-id``: the client's own id of it, which it may use more than once."""
    arrived: float
    """The clock's stamp of its arrival, before its body is read: its times and its deadline count from it."""
    caller: Caller = OPEN
    session: str = ""
    """The conversation that it is a turn of, by its tenant's id for it; empty if it is of none."""
    span: RequestSpan = UNTRACED

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Trace the request to the end of this block, which is the end of its span."""
        try:
            yield
            self.span.answered()
        except Exception as error:
            self.span.failed(error)
            raise
        finally:
            self.span.end()
