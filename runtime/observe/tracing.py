"""Traces of requests: the port that traffic calls, and its stand-in while tracing is off.

One span per request, and one per hop beneath it. Nothing is measured here: a hop's span takes its times from
the hop's record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from runtime.core.metering.hop import HopEnded
from runtime.core.metering.ledger import HopTag
from runtime.core.walk.call import Call

_log = logging.getLogger(__name__)

TraceContext = Mapping[str, str]
"""``traceparent``, and ``tracestate`` if there is one (W3C Trace Context); empty where there is no trace."""


class HopSpan(Protocol):
    """One hop's span."""

    @property
    def context(self) -> TraceContext:
        """The trace context that the engine gets, so that its own spans become children of this one."""
        ...

    def retried(self, error: Exception) -> None:
        """Note that the hop's replica is lost and another one is asked."""
        ...

    def end(self, ended: HopEnded) -> None:
        """End the span as the hop did."""
        ...


class RequestSpan(Protocol):
    """One request's span."""

    def leased(self, tag: HopTag, model_set: str, *, stream: bool) -> None:
        """Note what the request runs on. ``tag`` has what all its hops share."""
        ...

    def degraded(self, chain: str) -> None:
        """Note that another chain answers than the one asked for, ``chain``."""
        ...

    def hop(self, call: Call, sent: float) -> HopSpan:
        """Begin a hop's span; ``sent`` is the clock's stamp of its start."""
        ...

    def failed(self, error: Exception) -> None:
        """Note what the request has failed by. The first such error counts."""
        ...

    def answered(self) -> None:
        """Note that the last byte has gone out, of an answer or of an error."""
        ...

    def end(self) -> None:
        """End the span. One that has neither failed nor been answered was cancelled by its client."""
        ...


class Tracer(Protocol):
    """Where spans come from."""

    def request(self, request_id: str, context: TraceContext, arrived: float) -> RequestSpan:
        """Begin a request's span beneath its client's; ``arrived`` is the clock's stamp of its arrival."""
        ...

    def close(self) -> None:
        """Export what has ended, within a limit. Blocks."""
        ...


class _HandedOn:
    """A hop of which no span is made: the engine gets its client's context as it came."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def retried(self, error: Exception) -> None:
        """Do nothing."""

    def end(self, ended: HopEnded) -> None:
        """Do nothing."""


class Untraced:
    """A request of which no span is made."""

    __slots__ = ("_hop",)

    def __init__(self, context: TraceContext) -> None:
        self._hop = _HandedOn(context)

    def leased(self, tag: HopTag, model_set: str, *, stream: bool) -> None:
        """Do nothing."""

    def degraded(self, chain: str) -> None:
        """Do nothing."""

    def hop(self, call: Call, sent: float) -> HopSpan:  # noqa: ARG002 - the port's form
        """Return what stands for every hop's span."""
        return self._hop

    def failed(self, error: Exception) -> None:
        """Do nothing."""

    def answered(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


UNTRACED = Untraced({})
"""A request that came without a context; one for all, since it keeps nothing."""


class NoTracer:
    """Tracing while it is off: no span is made, and a client's context goes on to engines untouched."""

    def request(self, request_id: str, context: TraceContext, arrived: float) -> RequestSpan:  # noqa: ARG002
        """Return what stands for the request's span."""
        return Untraced(context) if context else UNTRACED

    def close(self) -> None:
        """Do nothing."""
