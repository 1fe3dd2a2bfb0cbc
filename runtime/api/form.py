"""How a chain's answer becomes bytes: what a form of the API is, and what it gets.

A form is two pure parts: a ``ReadRequest``, which parses what is asked for, and an ``AnswerForm``, which
writes the answer. ``api.answering`` runs the request between them, whatever its form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from runtime.core.metering.latency import Latency
from runtime.core.metering.usage import HopRecord, Usage
from runtime.core.requests.ask import Ask
from runtime.core.swap.routes import RoutedRelease
from runtime.engines.port import Chunk
from runtime.errors import InterlockError
from runtime.observe.server_timing import server_timing


class AnswerHead(NamedTuple):
    """What is known of an answer at its beginning."""

    request_id: str
    chain: str
    """The chain that answers: the one that was asked, or the one that it degrades to."""
    created: int
    """Seconds since the Unix epoch."""


class AnswerTrailer(NamedTuple):
    """What is known of an answer at its end."""

    release: RoutedRelease
    hops: Sequence[HopRecord]
    usage: Usage
    latency: Latency

    @property
    def server_timing(self) -> str:
        """Where the time went, as the ``Server-Timing`` header has it."""
        return server_timing(self.latency, self.hops)

    def as_json(self, *, streamed: bool) -> dict[str, Any]:
        """Return the ``interlock`` object of an answer, whichever form it has.

        The headers of one that is ``streamed`` go out before there is anything to time: it has that, too.
        """
        members = {
            "release": self.release.number,
            "model_set": self.release.model_set,
            "hops": [hop.as_json() for hop in self.hops],
            "latency": self.latency.as_json(),
        }
        return members | {"server_timing": self.server_timing} if streamed else members


class AnswerForm(Protocol):
    """Writes one answer. It buffers what it holds back of a stream, so each answer has its own.

    An engine's chunks are passed on as they came: their ``members`` are ready JSON.
    """

    def body(self, members: bytes, trailer: AnswerTrailer) -> bytes:
        """Return the body of an answer that is not streamed, whose engine gave ``members``."""
        ...

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the events that can go out now that ``chunks`` have come; nothing if none can."""
        ...

    def last_events(self, trailer: AnswerTrailer) -> bytes:
        """Return the events that end a stream, with whatever was held back."""
        ...

    def error_events(self, error: InterlockError, trailer: AnswerTrailer) -> bytes:
        """Return the events that end a stream which ``error`` has broken."""
        ...


NewForm = Callable[[AnswerHead], AnswerForm]
"""Makes the form of an answer that begins."""

ReadRequest = Callable[[bytes], Awaitable[tuple[Ask, NewForm]]]
"""Parses a request's body: what is asked for, and the answer's form. Raises InvalidRequest, Overloaded."""
