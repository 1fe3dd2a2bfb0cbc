"""``traceparent`` and ``tracestate`` (W3C Trace Context) as a client sends them."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from runtime.observe.tracing import TraceContext

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_STATE = 512


def trace_context_of(headers: Headers) -> TraceContext:
    """Return the trace that a request is a part of; empty if there is none, or it is malformed.

    It is passed on to engines, so it is checked here; a ``tracestate`` of over 512 characters is dropped.
    """
    parent = headers.get("traceparent")
    if parent is None or not _PARENT.fullmatch(parent):
        return {}
    state = ",".join(headers.getlist("tracestate"))
    if not state or len(state) > _MAX_STATE or not (state.isascii() and state.isprintable()):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}
