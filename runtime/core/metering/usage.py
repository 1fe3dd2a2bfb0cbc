"""What a hop and a request have spent: tokens as the engine counted them, times in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

UNCOUNTED = "interlock_engine_uncounted_tokens"
"""The gauge of tokens that an engine's software has generated and no call has counted: 0, ever."""


class Usage(NamedTuple):
    """Token counts.

    ``cached`` of the ``prompt`` tokens came from the prefix cache; ``reasoning`` of the ``completion``
    tokens are thoughts that the answer does not show.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt + self.completion

    def plus(self, other: Usage) -> Usage:
        """Return the sum, field by field."""
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
        )

    def as_openai(self) -> dict[str, Any]:
        """Return OpenAI's ``usage`` object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


NOTHING = Usage()
"""No tokens."""


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of ``usages``."""
    result = Usage()
    for usage in usages:
        result = result.plus(usage)
    return result


class HopRecord(NamedTuple):
    """One executed call of a chain.

    ``queue_ms`` is what the hop waited before a replica began with it, transport included: the
    gateway's time to the first answer less the replica's own. Both are spans of one process each;
    no stamps of two processes are subtracted.

    ``start_ms`` counts from the request's arrival at the gateway. ``generation_ms`` is from the first
    token to the last, ``inter_token_ms`` the mean and ``inter_token_max_ms`` the longest time from one
    token to the next as they came here: None where all came at once, as without streaming.
    ``overrun_ms`` is by how much the hop took longer than the chain's ``latency_budget`` gives its step.
    """

    step: str
    engine: str
    usage: Usage
    queue_ms: float
    ttft_ms: float
    duration_ms: float
    start_ms: float = 0.0
    generation_ms: float = 0.0
    inter_token_ms: float | None = None
    inter_token_max_ms: float | None = None
    overrun_ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the hop as the ``interlock`` object of an answer shows it."""
        return {
            "step": self.step,
            "engine": self.engine,
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "cached_tokens": self.usage.cached,
            "queue_ms": round(self.queue_ms, 3),
            "ttft_ms": round(self.ttft_ms, 3),
            "duration_ms": round(self.duration_ms, 3),
            "start_ms": round(self.start_ms, 3),
            "generation_ms": round(self.generation_ms, 3),
            "inter_token_ms": _rounded(self.inter_token_ms),
            "inter_token_max_ms": _rounded(self.inter_token_max_ms),
            "overrun_ms": round(self.overrun_ms, 3),
        }


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)
