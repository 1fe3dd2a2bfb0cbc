"""What one rendering may do, and what is left of that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context

MAX_STEPS = 20_000
"""Iterations, calls, filters and operations of one rendering."""

MAX_CHARACTERS = 16 * 2**20
"""What they may read and make together."""

ITEM = 64
"""As many characters an item of a list or a mapping counts, beside its own."""

METER = " meter"
"""No template can say this name."""

SCALARS = {int, float, bool, type(None)}
"""Kinds of values that hold nothing to count."""


class TooMuch(TemplateRuntimeError):
    """A rendering that does more than a prompt needs."""


class RenderMeter:
    """What one rendering may still do."""

    __slots__ = ("characters", "steps")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.characters = MAX_CHARACTERS

    def step(self) -> None:
        """Count an operation."""
        self.steps -= 1
        if self.steps < 0:
            raise TooMuch(f"it takes more than {MAX_STEPS} steps")

    def take(self, characters: int) -> None:
        """Count characters that are about to be read or made."""
        self.characters -= characters
        if self.characters < 0:
            raise TooMuch(f"it works on more than {MAX_CHARACTERS} characters")

    def weigh(self, value: Any, times: int = 1) -> Any:
        """Count what ``value`` holds to its last character, and return it."""
        if isinstance(value, str):
            self.take(len(value) * times)
        elif isinstance(value, dict | list | tuple | Mapping):
            self.take(len(value) * ITEM * times)
            for item in value.items() if isinstance(value, Mapping) else value:
                if not isinstance(item, int | float):
                    self.weigh(item, times)
        return value

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``items``, each as a step."""
        for item in items:
            self.steps -= 1
            if self.steps < 0:
                self.step()
            yield item

    def sized(self, value: Any) -> Any:
        """Count what ``value`` holds, not looking into its items, and return it."""
        if isinstance(value, str):
            self.take(len(value))
        elif isinstance(value, Sized) and not isinstance(value, Undefined):
            self.take(len(value) * ITEM)
        return value


def meter_of(context: Context) -> RenderMeter:
    """Return what counts this rendering."""
    meter: RenderMeter = context.parent[METER]
    return meter


def variables_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of one rendering, and what counts it."""
    return {**variables, METER: RenderMeter()}
