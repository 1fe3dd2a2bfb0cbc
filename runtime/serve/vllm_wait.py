"""How vLLM's processes wait for each other on a CPU: with naps, not spinning.

vLLM's engine core and its workers hand work to and fro through shared memory. Who waits there looks again and
again for a second before it sleeps until it is told, which is quickest where it has a core of its own. On a
CPU that core is the model's, or a gateway's: on two cores, one of them did nothing else.

To sleep at once until told is no way: what tells (a ZeroMQ publisher that keeps one message) may drop a word,
and the sleeper then looks only every five seconds.

vLLM calls ``attach`` as a plugin (``pyproject.toml``) in each of its processes, wherever it runs. It does
nothing unless the engine's environment asks for it, which ``core.llm_config`` makes it do on a CPU.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from runtime.settings import vllm_naps

_log = logging.getLogger(__name__)

_SHORTEST_S, _LONGEST_S, _SHARE = 0.0001, 0.0005, 0.05
"""A nap is a small share of the wait so far: each costs a wake-up, and ends late by half of itself."""


def attach() -> None:
    """Have readers take naps in this process, if its environment says so."""
    if not vllm_naps():
        return
    from vllm.distributed.device_communicators import shm_broadcast  # noqa: PLC0415 - vLLM's processes have it

    condition = getattr(shm_broadcast, "SpinCondition", None)
    if not callable(getattr(condition, "wait", None)):
        _log.info("this vLLM waits otherwise: it is left as it is")
        return
    condition.wait = _with_naps(condition.wait)  # type: ignore[union-attr]


def _with_naps(wait: Any) -> Any:
    """Return vLLM's ``wait`` with a nap where it would look again at once."""

    def wait_with_naps(condition: Any, timeout_ms: int | None = None) -> None:
        waited = spinning_for(condition)
        if waited is None:
            wait(condition, timeout_ms)
        else:
            time.sleep(nap_seconds(waited))

    return wait_with_naps


def nap_seconds(waited: float) -> float:
    """Return how long to nap after ``waited`` seconds."""
    return min(max(waited * _SHARE, _SHORTEST_S), _LONGEST_S)


def spinning_for(condition: Any) -> float | None:
    """Return for how many seconds vLLM has looked again at once; None if it would not.

    One that keeps this otherwise is left to itself.
    """
    last_read, busy_loop = getattr(condition, "last_read", None), getattr(condition, "busy_loop_s", None)
    if last_read is None or busy_loop is None:
        return None
    waited: float = time.monotonic() - last_read
    return waited if waited <= busy_loop else None
