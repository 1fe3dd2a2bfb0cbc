"""Spans by OpenTelemetry's SDK: the one module that knows it, imported only where requests are traced.

Its provider is its own and never the process's: what else in the process makes spans does not mix with it,
nor does a span ever hang on what happens to be the current one of a task.
"""

from __future__ import annotations

import logging
from threading import Thread
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from runtime.clock import Clock
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.ledger import HopTag, Outcome, hop_outcome
from runtime.core.metering.usage import NOTHING, Usage
from runtime.core.model_set.digest import SHORT
from runtime.core.walk.call import Call
from runtime.observe import trace_names as names
from runtime.observe.tracing import TraceContext

_log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 5.0
"""How long a gateway that ends waits for the collector; the SDK itself would wait for 30 s and more."""

_Attributes = dict[str, AttributeValue]

_W3C = TraceContextTextMapPropagator()


def exporting(protocol: str, instance: str, clock: Clock) -> OtelTracer:
    """Return a tracer that exports in batches. All but ``protocol`` the SDK finds in its own variables."""
    ours = Resource.create({"service.name": names.SCOPE, "service.instance.id": instance})
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()),
        # At the end of the process nobody waits for a collector: ``close`` is where that has its limit.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
    return OtelTracer(provider, clock)


def _exporter(protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - gRPC for who wants it
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above

    return OTLPSpanExporter()


class OtelTracer:
    """Makes spans of a provider, with times of a clock."""

    def __init__(self, provider: TracerProvider, clock: Clock) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(names.SCOPE)
        self._clock = clock

    def request(self, request_id: str, context: TraceContext, arrived: float) -> _RequestSpan:
        """Begin a request's span beneath its client's."""
        times = _Times(self._clock)
        span = self._tracer.start_span(
            names.REQUEST,
            _W3C.extract(context, Context()),
            SpanKind.SERVER,
            {names.OPERATION: names.REQUEST, names.PROVIDER: names.SCOPE, names.REQUEST_ID: request_id},
            start_time=times.at(arrived),
        )
        return _RequestSpan(self, span, times)

    def hop(self, parent: Span, call: Call, start: int) -> Span:
        """Begin a hop's span; ``start`` is in nanoseconds since the Unix epoch."""
        operation = names.OPERATIONS[call.operation]
        attributes = {
            names.OPERATION: operation,
            names.PROVIDER: names.SCOPE,
            names.MODEL: call.engine,
            names.STEP: call.step,
        }
        return self._tracer.start_span(
            f"{operation} {call.engine}",
            set_span_in_context(parent, Context()),
            SpanKind.CLIENT,
            attributes,
            start_time=start,
        )

    def close(self) -> None:
        """Export what has ended, for ``CLOSE_SECONDS`` at most."""
        # The SDK's own limits do not hold while its exporter tries again.
        ending = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            _log.warning("the last spans are lost: no collector took them within %g s", CLOSE_SECONDS)


class _Times:
    """Turns a clock's stamps into nanoseconds since the Unix epoch, all of one request by one offset.

    Were each read off the wall's clock, a span could end before it begins whenever that is set.
    """

    __slots__ = ("_clock", "_now", "_wall")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now = clock.now()
        self._wall = int(clock.wall() * 1e9)

    def at(self, stamp: float) -> int:
        return self._wall + round((stamp - self._now) * 1e9)

    def now(self) -> int:
        return self.at(self._clock.now())


class _RequestSpan:
    """A request's span, which sums up what its hops come to."""

    def __init__(self, tracer: OtelTracer, span: Span, times: _Times) -> None:
        self._tracer = tracer
        self._span = span
        self._times = times
        self._attributes: _Attributes = {}
        self._outcome = Outcome.CANCELLED
        self._error: Exception | None = None
        self._usage = NOTHING
        self.streamed = False

    def leased(self, tag: HopTag, model_set: str, *, stream: bool) -> None:
        self._span.update_name(f"{names.REQUEST} {tag.chain}")
        self.streamed = stream
        self._attributes |= {names.CHAIN: tag.chain, names.RELEASE: tag.release, names.MODEL_SET: model_set}
        given: _Attributes = {names.TENANT: tag.tenant, names.CONVERSATION: tag.session, names.STREAM: stream}
        self._attributes |= {name: value for name, value in given.items() if value}

    def degraded(self, chain: str) -> None:
        self._attributes[names.DEGRADED_FROM] = chain

    def hop(self, call: Call, sent: float) -> _HopSpan:
        start = self._times.at(sent)
        return _HopSpan(self, self._tracer.hop(self._span, call, start), call, start, self._times)

    def spent(self, usage: Usage) -> None:
        """Add what a hop has spent."""
        self._usage = self._usage.plus(usage)

    def begun(self, after_ms: float) -> None:
        """Note when the answer began, in milliseconds since the request arrived."""
        self._attributes |= _first(after_ms, streamed=self.streamed)

    def failed(self, error: Exception) -> None:
        self._error = self._error or error

    def answered(self) -> None:
        self._outcome = Outcome.OK

    def end(self) -> None:
        outcome = hop_outcome(self._error) if self._error is not None else self._outcome
        _end(self._span, self._attributes | _spent(self._usage), outcome, self._error, self._times.now())


class _HopSpan:
    """A hop's span."""

    def __init__(self, request: _RequestSpan, span: Span, call: Call, start: int, times: _Times) -> None:
        self._request = request
        self._span = span
        self._answers = call.answers
        self._start = start
        self._times = times
        self.context: dict[str, str] = {}
        _W3C.inject(self.context, set_span_in_context(span, Context()))

    def retried(self, error: Exception) -> None:
        self._span.add_event(names.RETRY, {names.ERROR: type(error).__name__}, self._times.now())

    def end(self, ended: HopEnded) -> None:
        record, outcome = ended.record, ended.outcome
        self._request.spent(record.usage)
        attributes: _Attributes = {
            names.HOP: ended.tag.hop,
            names.ENGINE: record.engine or ended.tag.engine[:SHORT],
            names.QUEUE: record.queue_ms,
        }
        if record.usage.completion or outcome is Outcome.OK:
            attributes |= _first(record.ttft_ms, streamed=self._answers and self._request.streamed)
            if self._answers:
                self._request.begun(record.start_ms + record.ttft_ms)
        end = self._start + round(record.duration_ms * 1e6)
        _end(self._span, attributes | _spent(record.usage), outcome, ended.error, end)


def _spent(usage: Usage) -> _Attributes:
    return {
        names.INPUT_TOKENS: usage.prompt,
        names.CACHED_TOKENS: usage.cached,
        names.OUTPUT_TOKENS: usage.completion,
        names.REASONING_TOKENS: usage.reasoning,
    }


def _first(after_ms: float, *, streamed: bool) -> _Attributes:
    attributes: _Attributes = {names.FIRST_TOKEN: after_ms}
    return attributes | {names.FIRST_CHUNK: after_ms / 1000.0} if streamed else attributes


def _end(span: Span, attributes: _Attributes, outcome: Outcome, error: Exception | None, end: int) -> None:
    """End a span. A client that went away is no error: it may have read all that it wanted."""
    attributes[names.OUTCOME] = outcome.value
    if error is not None:
        attributes[names.ERROR] = type(error).__name__
        span.set_status(Status(StatusCode.ERROR))
    # All at once: each attribute by itself would take the span's lock.
    span.set_attributes(attributes)
    span.end(end)
