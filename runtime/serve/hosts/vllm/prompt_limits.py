"""Refusing a body that is too large to be a prompt, before anything that takes long looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import InvalidRequest

_VALUES_PER_TOKEN = 4
"""A rendered message has its role, its content and marks of the template around: more tokens than values."""

_DEEPEST = 32


@dataclass(frozen=True)
class _Room:
    """How much a member may hold."""

    characters: int
    values: int
    objects: int
    longest: int
    """Characters of one text."""


_GRAMMAR = _Room(characters=32 * 1024, values=4096, objects=600, longest=8 * 1024)
"""Of a schema or grammar: a schema of 800 properties takes seconds, one of 2,000 a minute."""

_FORMS = ("response_format", "structured_outputs", "tool_choice")
"""Members that are compiled. Tools are read by the model, and have its limits."""


@dataclass(frozen=True)
class PromptLimits:
    """What an engine with so long a context can read at most."""

    context_length: int
    """In tokens."""
    longest_token: int
    """Characters of the longest token that its tokenizer knows: no text of more can fit, whatever it says."""

    @property
    def characters(self) -> int:
        """How many characters fit into the context if each token were the longest."""
        return self.context_length * self.longest_token

    def check(self, body: Mapping[str, Any]) -> None:
        """Return if ``body`` may be a prompt. Takes milliseconds for whatever can be sent.

        Raises:
            InvalidRequest: it cannot fit into the context, or nothing that is sent has such a form.

        """
        values = self.context_length * _VALUES_PER_TOKEN
        prompt = _Room(self.characters, values, values, self.characters)
        for name in ("messages", "tools", "documents"):
            if not _fits(body.get(name), name, prompt):
                raise self._too_long(name)
        for name in _FORMS:
            if not _fits(body.get(name), name, _GRAMMAR):
                size = f"{_GRAMMAR.objects} objects, {_GRAMMAR.values} values"
                most = f"{size}, {_GRAMMAR.characters} characters, {_GRAMMAR.longest} in one text"
                raise InvalidRequest(f"{name} is too large to be compiled: it may have {most}", param=name)

    def _too_long(self, name: str) -> InvalidRequest:
        held = f"no more than {self.characters} characters can be in the {self.context_length} tokens"
        message = f"{name} cannot fit into the model's context: {held} that it reads"
        return InvalidRequest(message, param=name, code="context_length_exceeded")


def _fits(value: Any, name: str, room: _Room) -> bool:
    """Say whether ``value`` fits. What does not is looked at no further than that is plain."""
    level, depth, left = [value], 0, _Left(room)
    while level:
        if depth > _DEEPEST:
            raise InvalidRequest(f"{name} is nested deeper than {_DEEPEST} levels", param=name)
        inside: list[Any] = []
        for part in level:
            if not left.take(part) or len(inside) > left.values:
                return False
            if isinstance(part, Mapping):
                inside.extend(part.values())
            elif isinstance(part, list | tuple):
                inside.extend(part)
        level, depth = inside, depth + 1
    return True


class _Left:
    """What is left of a room."""

    def __init__(self, room: _Room) -> None:
        self.values = room.values
        self._characters = room.characters
        self._objects = room.objects
        self._longest = room.longest

    def take(self, part: Any) -> bool:
        """Take the room of one value by itself; say whether there was so much."""
        self.values -= part is not None
        if isinstance(part, Mapping | list | tuple) and len(part) > self.values:
            return False
        if isinstance(part, str):
            self._characters -= len(part)
            if len(part) > self._longest:
                return False
        elif isinstance(part, Mapping):
            self._objects -= 1
            self._characters -= sum(len(str(name)) for name in part)
        return self.values >= 0 and self._characters >= 0 and self._objects >= 0
