"""The protocol of an engine: one model with its settings, running.

``EngineClient`` is what a request needs of it; ``Engine`` adds what its owner needs. An engine never
sees OpenAI's HTTP: it takes JSON bodies and gives back chunks whose JSON is ready to be sent on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple, Protocol

from runtime.core.metering.ledger import EndedHop
from runtime.core.metering.series import Family
from runtime.core.metering.usage import Usage

Body = Mapping[str, Any]

WITHIN = "interlock_within_s"
"""Key of a body: for how many seconds the caller still waits. Whoever hosts the engine takes it out."""

TRACE = "interlock_trace"
"""Key of a body: the caller's W3C trace context by its headers' names, beneath which an engine that makes
spans hangs its own; empty if there is none."""


class Chunk(NamedTuple):
    """A part of an answer.

    ``members`` is the inside of a JSON object, without its braces: ``"choices":[...]`` and whatever
    else the engine says beside it; empty if the chunk only brings a newer count. ``usage`` is the
    running count of the whole call. ``elapsed`` is seconds since the engine began with the call, by
    its own clock. ``finish`` marks a chunk that carries a finish reason. ``engine`` is the (shortened)
    digest of the engine that made it, as its host knows it; on an answer's first chunk.
    """

    members: bytes
    usage: Usage
    elapsed: float
    finish: bool = False
    engine: str = ""


class Classification(NamedTuple):
    """Which choice the input is nearest to, and the similarity to each (-1 to 1)."""

    choice: str
    scores: Mapping[str, float]
    usage: Usage
    elapsed: float
    engine: str = ""


class Embeddings(NamedTuple):
    """One vector of unit length per input."""

    vectors: list[list[float]]
    usage: Usage
    elapsed: float


class EngineClient(Protocol):
    """What a request needs of an engine. Closing a generator, or cancelling a call, aborts its work."""

    def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield an answer's chunks, those that are ready together in one list.

        ``body`` is OpenAI's chat completion request without ``model``, and with a ``HopTag`` as
        ``interlock_hop`` if the call is to be known by its id afterwards. With ``stream`` true the
        choices carry ``delta``, otherwise one chunk carries ``message``. The last chunk's usage is
        the exact count of the call.

        Raises:
            InvalidRequest: the engine refuses the body; says which field where it is known.
            EngineUnavailable: a fault of the engine's own.

        """
        ...

    async def classify(self, body: Body) -> Classification:
        """Return which of ``choices`` (name to example texts) ``input`` is nearest to.

        Raises:
            InvalidRequest: ``input`` or ``choices`` are missing or of the wrong type.
            EngineUnavailable: a fault of the engine's own.

        """
        ...

    async def embed(self, body: Body) -> Embeddings:
        """Return a vector for each text of ``input``.

        Raises:
            InvalidRequest: ``input`` is missing or of the wrong type.
            EngineUnavailable: a fault of the engine's own.

        """
        ...

    async def ping(self) -> None:
        """Return once the engine has answered. Raises EngineUnavailable."""
        ...

    async def count(self, operation: str, body: Body) -> int:
        """Return how many prompt tokens a call would read, by the engine's own tokenizer.

        Raises:
            InvalidRequest: the engine would refuse the body.
            EngineUnavailable: a fault of the engine's own.

        """
        ...

    async def spent(self, hop: str) -> Usage | None:
        """Return what the call with this hop id has spent, once it has ended; None if it never came.

        A caller that broke a call off asks here what it has spent. Raises EngineUnavailable.
        """
        ...


class Engine(EngineClient, Protocol):
    """What the owner of an engine needs besides: one instance per replica."""

    async def load(self) -> None:
        """Bring the model up. Raises EngineLoadError."""
        ...

    async def warm(self, operation: str, body: Body) -> WarmResult:
        """Run one call of a warm-up to its end, as a request would. Raises WarmupError."""
        ...

    async def sleep(self) -> None:
        """Give up what can be had back without loading (the KV cache); only while idle."""
        ...

    async def wake(self) -> None:
        """Undo ``sleep``."""
        ...

    async def idle(self) -> bool:
        """Say whether nothing is in flight, not even work whose caller has gone away."""
        ...

    async def metered(self) -> Usage:
        """Return the tokens of all calls so far, warm-up and broken-off ones included."""
        ...

    async def ended(self, after: int, age: float, limit: int) -> list[EndedHop]:
        """Return calls that have ended at least ``age`` seconds ago, oldest first, ``limit`` at most.

        Those up to number ``after`` are forgotten: whoever asks has kept them.
        """
        ...

    async def metrics(self) -> list[Family]:
        """Return what the engine's own software counts for Prometheus; nothing if it does not count.

        Labels distinguish parts of the engine, never processes.
        """
        ...

    async def unload(self) -> None:
        """Give everything up."""
        ...


class WarmResult(NamedTuple):
    """What a warm-up call returned: enough to walk on in the chain, and what it spent."""

    result: dict[str, Any]
    usage: Usage
    seconds: float
