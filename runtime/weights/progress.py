"""How the store tells how far it is, without knowing whether anybody looks."""

from __future__ import annotations

from typing import Protocol


class ReportProgress(Protocol):
    """Something that shows progress, or does not."""

    def step(self, description: str, done: int, total: int | None) -> None:
        """Say that ``done`` bytes of ``total`` are done; a ``total`` of ``None`` means unknown.

        Called several times a second during a long step; a new ``description`` begins a new step.
        """
        ...
