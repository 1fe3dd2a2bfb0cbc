"""``Server-Timing`` (W3C): where a request's time went, as browsers and proxies read it.

The gateway's own parts and the steps add up to ``total``. A step's ``.queue`` and ``.ttft`` are inside
the step: what it waited before a replica began with it, and its time to the first token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runtime.core.metering.latency import Latency, shown
from runtime.core.metering.usage import HopRecord

NAME = "server-timing"

_NOT_IN_A_TOKEN = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_OWN = frozenset({"admission", "gaps", "tail", "total"})


def server_timing(latency: Latency, hops: Sequence[HopRecord]) -> str:
    """Return the header's value; durations are milliseconds."""
    return ", ".join(f"{name};dur={shown(ms):.3f}" for name, ms in _metrics(latency, hops))


def _metrics(latency: Latency, hops: Sequence[HopRecord]) -> Iterator[tuple[str, float]]:
    yield "admission", latency.admission_ms
    for hop in hops:
        name = metric_name(hop.step)
        yield name, hop.duration_ms
        yield f"{name}.queue", hop.queue_ms
        yield f"{name}.ttft", hop.ttft_ms
    yield "gaps", latency.gaps_ms
    yield "tail", latency.tail_ms
    yield "total", latency.total_ms


def metric_name(step: str) -> str:
    """Return a step's name as a token of HTTP, with a prefix if a part of the gateway's has that name."""
    token = _NOT_IN_A_TOKEN.sub("_", step) or "_"
    return f"step.{token}" if token in _OWN else token
