"""A document as somebody wrote it: its value, where each part of it stands, and what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from runtime.errors import ModelSetError

Key = tuple[str | int, ...]
"""The way to a part: keys and positions."""

MAX_DEPTH = 64
"""How deep a document may be nested."""

MAX_VALUES = 20_000
"""How many values a document may have, those counted again that it names again by an alias."""

_MAX_QUOTED = 500
"""Characters of a key or a reason: both may quote what is wrong."""

MAX_PROBLEMS = 20
"""How many problems an error lists."""

_LEAST, _MOST = -(2**63), 2**63 - 1

_NO_TEXT = re.compile("[\\x00\\ud800-\\udfff]")
"""NUL, which PostgreSQL keeps in no JSON, and halves of characters, which are in no UTF-8."""


@dataclass(frozen=True)
class Place:
    """Where a value stands. ``plain`` is how it is written, if that was read as something else than text."""

    line: int
    plain: str | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, why, and what was probably meant.

    ``first`` says that it explains others, so that it is listed before them;
    ``text`` that text belongs there.
    """

    key: Key
    reason: str
    nearest: str | None = None
    line: int | None = None
    first: bool = False
    text: bool = False


@dataclass(frozen=True)
class Document:
    """What was read, by whatever notation: text, numbers, booleans, null, lists and mappings by text."""

    source: str
    value: Any
    places: Mapping[Key, Place] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def refusal(self, problems: Iterable[Problem]) -> ModelSetError:
        """Return the error that lists ``problems``: those that explain others first, then by line."""
        by_key: dict[Key, Problem] = {}
        for problem in problems:
            by_key.setdefault(problem.key, problem)
        ordered = sorted(by_key.values(), key=lambda p: (not p.first, self._line(p) or 0))
        errors = [self._error(problem, ()) for problem in ordered[:MAX_PROBLEMS]]
        others = [str(error) for error in errors[1:]]
        if len(ordered) > MAX_PROBLEMS:
            others.append(f"{self.source}: and {len(ordered) - MAX_PROBLEMS} more")
        return self._error(ordered[0], tuple(others))

    def _error(self, problem: Problem, others: tuple[str, ...]) -> ModelSetError:
        key, reason = _cut(dotted(problem.key)), _cut(self._reason(problem))
        return ModelSetError(self.source, key, reason, problem.nearest, self._line(problem), others)

    def _line(self, problem: Problem) -> int | None:
        """Return the problem's line: its key's, or that of what is around it."""
        if problem.line is not None:
            return problem.line
        for length in range(len(problem.key), -1, -1):
            place = self.places.get(problem.key[:length])
            if place is not None:
                return place.line
        return None

    def _reason(self, problem: Problem) -> str:
        """Return the reason, and that text has to be in quotes where YAML takes it for something else."""
        value = self._at(problem.key)
        if value is None or isinstance(value, str | list | Mapping):
            return problem.reason
        place, reading = self.places.get(problem.key), as_written(value)
        if place is not None and place.plain not in (None, reading):
            return f"{problem.reason}; {place.plain} is read as {reading}: put it in quotes"
        return (
            f"{problem.reason}; {reading} is {kind_of(value)}: put it in quotes"
            if problem.text
            else problem.reason
        )

    def _at(self, key: Key) -> Any:
        node = self.value
        for part in key:
            if isinstance(node, Mapping) or (isinstance(node, list) and isinstance(part, int)):
                try:
                    node = node[part]  # type: ignore[index]  # each with its own kind of key
                except (KeyError, IndexError):
                    return None
            else:
                return None
        return node


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "..."


def dotted(key: Key) -> str:
    """Return ``key`` as people write it: ``chains.agent.steps[1].generate``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def as_written(value: Any) -> str:
    """Return a scalar as JSON and YAML write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def kind_of(value: Any) -> str:
    """Return in words what a scalar is read as."""
    if value is None or isinstance(value, bool):
        return as_written(value)
    return "a date" if isinstance(value, date) else "a number"


def unfit(value: Any) -> str | None:
    """Return why a scalar can go into no JSON, and so into no journal; None if it can."""
    match value:
        case None | bool():
            return None
        case int() if not _LEAST <= value <= _MOST:
            return "a number beyond 64 bits"
        case float() if not math.isfinite(value):
            return "not a finite number"
        case int() | float():
            return None
        case str():
            return "text with a character that is none" if _NO_TEXT.search(value) else None
        case date():
            return f"{value} is read as a date: put it in quotes"
    return f"a value of type {type(value).__name__}, which JSON has not"


def document_of(value: Any, source: str) -> Document:
    """Return the document of a value that came as JSON, or inside another document.

    Raises:
        ModelSetError: it is nested too deep, or holds too many values.

    """
    reading = _Reading(source)
    return Document(source, reading.plain(value, ()), {}, tuple(reading.problems))


class _Reading:
    """One value on its way to a document."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._left = MAX_VALUES

    def plain(self, value: Any, key: Key) -> Any:
        """Return ``value`` with mappings by text; what it may not hold is a problem, and null instead."""
        self._left -= 1
        if len(key) > MAX_DEPTH:
            raise too_deep(self._source)
        if self._left < 0:
            raise too_many(self._source)
        if isinstance(value, Mapping):
            return {name: self.plain(item, (*key, name)) for name, item in self._by_text(value, key)}
        if isinstance(value, list | tuple):
            return [self.plain(item, (*key, position)) for position, item in enumerate(value)]
        reason = unfit(value)
        if reason is not None:
            self.problems.append(Problem(key, reason))
            return None
        return value

    def _by_text(self, value: Mapping[Any, Any], key: Key) -> Iterator[tuple[str, Any]]:
        for name, item in value.items():
            if isinstance(name, str) or type(name) is int:
                yield str(name), item
            else:
                reason = f"the key {as_written(name)} is {kind_of(name)}: put it in quotes"
                self.problems.append(Problem(key, reason))


def too_deep(source: str) -> ModelSetError:
    """Return the error of a document that is nested too deep."""
    return ModelSetError(source, "", f"it is nested more than {MAX_DEPTH} deep")


def too_many(source: str) -> ModelSetError:
    """Return the error of a document that holds too many values."""
    reason = f"it holds more than {MAX_VALUES} values, those counted again that aliases name again"
    return ModelSetError(source, "", reason)
