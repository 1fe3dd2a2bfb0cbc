"""Counting what live hops spend, by engine. The counts are the engines' own, passed on with each hop."""

from __future__ import annotations

from runtime.core.usage import NOTHING, Usage


class Meter:
    """Totals since the gateway started."""

    def __init__(self) -> None:
        self._totals: dict[str, Usage] = {}

    def record(self, engine: str, usage: Usage) -> None:
        """Add one hop's usage to its engine's total."""
        self._totals[engine] = self._totals.get(engine, NOTHING).plus(usage)

    @property
    def totals(self) -> dict[str, Usage]:
        """Usage by engine digest."""
        return dict(self._totals)
