"""Whether requests are traced, and where their spans go: OpenTelemetry's own variables say so."""

from __future__ import annotations

import logging

from runtime.clock import Clock
from runtime.observe.tracing import NoTracer, Tracer
from runtime.settings import TraceSettings

_log = logging.getLogger(__name__)


def open_tracer(instance: str, clock: Clock) -> Tracer:
    """Return the tracer that OpenTelemetry's variables ask for; one that does nothing if they ask for none.

    ``instance`` identifies this process among those of its service.
    """
    wanted = TraceSettings()
    if not wanted.on:
        return NoTracer()
    if wanted.protocol not in {"http/protobuf", "grpc"}:
        _log.warning(
            "requests are not traced: OTEL_EXPORTER_OTLP_PROTOCOL is %r; say http/protobuf or grpc",
            wanted.protocol,
        )
        return NoTracer()
    # OpenTelemetry's SDK, 10 MB of a gateway's memory, is for those who trace.
    from runtime.observe.otel import exporting  # noqa: PLC0415

    return exporting(wanted.protocol, instance, clock)
