"""Where a request's time went: its parts, laid end to end on one clock, the gateway's.

Where one part ends the next begins, so they add up to the total whatever was measured: time that no
hop took is the gateway's own and shows as a gap, never as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from runtime.core.metering.usage import HopRecord


class Latency(NamedTuple):
    """A request's time in milliseconds; all fields but the total add up to it."""

    total_ms: float
    """From the request's arrival at the gateway until the end of its answer is written."""
    admission_ms: float
    """From its arrival, reading its body included, until its chain starts."""
    steps_ms: Mapping[str, float]
    """What the hops took that all others waited for, by step, in their order; those of one step together."""
    gaps_ms: float
    """The gateway's own work before the first hop and between hops."""
    tail_ms: float
    """From the last hop's end until the end of the answer is written."""

    def as_json(self) -> dict[str, Any]:
        """Return what the ``interlock`` object of an answer shows."""
        return {
            "total_ms": shown(self.total_ms),
            "admission_ms": shown(self.admission_ms),
            "steps_ms": {step: shown(ms) for step, ms in self.steps_ms.items()},
            "gaps_ms": shown(self.gaps_ms),
            "tail_ms": shown(self.tail_ms),
        }


_ROUNDING_MS = 0.001
"""By how much a hop may seem to begin before the one that it followed had ended: times are sums of floats."""


def latency_of(hops: Sequence[HopRecord], begun_ms: float, total_ms: float) -> Latency:
    """Return the parts of a request whose chain began ``begun_ms`` after its arrival."""
    end, gaps, steps = begun_ms, 0.0, dict[str, float]()
    for hop in critical_path(hops):
        gaps += hop.start_ms - end
        end = _end(hop)
        steps[hop.step] = steps.get(hop.step, 0.0) + hop.duration_ms
    return Latency(total_ms, begun_ms, steps, gaps, total_ms - end)


def critical_path(hops: Sequence[HopRecord]) -> list[HopRecord]:
    """Return the hops that made the request as long as it was, in their order.

    The last of them ended last of all, and each of the others last before the next one began: where hops ran
    beside each other, nothing waited for those that are left out. In a line that is all of them.
    """
    path: list[HopRecord] = []
    before = list(hops)
    while before:
        latest = max(map(_end, before)) - _ROUNDING_MS
        last = [hop for hop in reversed(before) if _end(hop) >= latest]
        path.append(max(last, key=lambda hop: hop.start_ms))
        begun = path[-1].start_ms + _ROUNDING_MS
        before = [hop for hop in before if hop is not path[-1] and _end(hop) <= begun]
    return path[::-1]


def _end(hop: HopRecord) -> float:
    return hop.start_ms + hop.duration_ms


def overrun(took: float, share: float | None) -> float:
    """Return by how many milliseconds ``took`` is over ``share``, both in seconds; 0 without a share."""
    return 0.0 if share is None else max(0.0, shown((took - share) * 1000.0))


def shown(ms: float) -> float:
    """Return ``ms`` to the microsecond. A difference of floats that is nothing shows as 0, not as -0."""
    return round(ms, 3) + 0.0


class Pace:
    """How evenly one hop's tokens come. ``arrive`` runs once per list of chunks: it must stay cheap."""

    __slots__ = ("_first", "_first_tokens", "_last", "_longest", "_tokens")

    def __init__(self) -> None:
        self._first = self._last = self._longest = 0.0
        self._first_tokens = self._tokens = 0

    def arrive(self, at: float, tokens: int) -> None:
        """Note that ``tokens`` in all had come ``at`` seconds after the hop was sent.

        A chunk that brings no new token (the role, a last count) is no arrival of one.
        """
        if tokens <= self._tokens:
            return
        if not self._tokens:
            self._first, self._first_tokens = at, tokens
        elif at - self._last > self._longest:
            self._longest = at - self._last
        self._last, self._tokens = at, tokens

    @property
    def generation_ms(self) -> float:
        """Milliseconds from the first token to the last."""
        return (self._last - self._first) * 1000.0

    @property
    def mean_ms(self) -> float | None:
        """Mean milliseconds from one token to the next; None if all came at once."""
        following = self._tokens - self._first_tokens
        return self.generation_ms / following if following else None

    @property
    def max_ms(self) -> float | None:
        """Longest wait, in milliseconds, between two arrivals; None if all came at once."""
        return self._longest * 1000.0 if self._tokens > self._first_tokens else None
