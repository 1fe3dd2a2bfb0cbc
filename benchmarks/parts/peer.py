"""What every server that is measured has in common, and what is done with each of them."""

from __future__ import annotations

import time
from typing import Any, Protocol

import httpx
import psutil

from benchmarks.parts.processes import resume, suspend
from runtime.errors import CommandError

_READY_S = 300.0
_ASK_S = 60.0


class Peer(Protocol):
    """A server that answers OpenAI's chat completions."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def model(self) -> str:
        """What it calls its model."""

    @property
    def url(self) -> str:
        """Where it listens."""

    def start(self) -> None:
        """Return once it answers. Raises CommandError with the reason if it does not."""

    def stop(self) -> None:
        """End every process of it."""

    def processes(self) -> list[psutil.Process]:
        """Return its processes, also those of what it stands in front of."""


def await_answer(peer: Peer, ended: Any, told: Any) -> None:
    """Return once ``peer`` has streamed a whole answer.

    ``ended`` says whether it has died, ``told`` what it has said of itself. Raises CommandError.
    """
    body = {
        "model": peer.model,
        "messages": [{"role": "user", "content": "1, 2, 3"}],
        "max_tokens": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    end, seen = time.monotonic() + _READY_S, "nothing answered"
    with httpx.Client(timeout=_ASK_S, trust_env=False) as http:
        while time.monotonic() < end and ended() is None:
            try:
                answer = http.post(f"{peer.url}/v1/chat/completions", json=body)
                if answer.is_success and "[DONE]" in answer.text and '"error"' not in answer.text:
                    return
                seen = answer.text[:500]
            except httpx.TransportError as error:
                seen = repr(error)
            time.sleep(0.3)
    raise CommandError(f"{peer.name} does not answer at {peer.url}: {seen}\n{told()}")


def set_aside(peer: Peer) -> None:
    """Keep a peer from using anything but its memory."""
    stopped: set[int] = set()
    while new := [process for process in peer.processes() if process.pid not in stopped]:
        suspend(new)
        stopped |= {process.pid for process in new}


def take_up(peer: Peer) -> None:
    """Let a peer go on."""
    resume(reversed(peer.processes()))
