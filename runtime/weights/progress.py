"""The port by which fetching a model reports its progress."""

from __future__ import annotations

from typing import Protocol


class ReportProgress(Protocol):
    """Shows progress, or ignores it."""

    def step(self, description: str, done: int, total: int | None) -> None:
        """Report that ``done`` bytes of ``total`` are done; a ``total`` of ``None`` means unknown.

        Called several times a second during a long step; a new ``description`` begins a new step.
        """
        ...
