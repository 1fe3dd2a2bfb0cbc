"""A call that a walk wants made, and what it may come to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Operation(StrEnum):
    """The operations of an engine, by the names of its port's methods."""

    CLASSIFY = "classify"
    GENERATE = "generate"


class Call(NamedTuple):
    """A call to make: which engine, which operation, and the JSON body."""

    id: str
    """Its name in this walk, which no other call of it has: hops under way together are told apart by it."""
    step: str
    engine: str
    operation: Operation
    body: Mapping[str, Any]
    answers: bool = False
    """Whether its result is the client's answer."""


class Choice(NamedTuple):
    """What a classification has come to: the choice, and each choice's similarity to the input (-1 to 1)."""

    choice: str
    scores: Mapping[str, float]


class Text(NamedTuple):
    """What a generation has come to."""

    text: str


Result = Choice | Text


def made_up(call: Call, text: str = "") -> Result:
    """Return a result that a call may have: ``text``, or the choice with the longest name."""
    if call.operation is Operation.CLASSIFY:
        names: list[str] = list(call.body["choices"])
        return Choice(max(names, key=len), dict.fromkeys(names, 0.0))
    return Text(text)


def result_of(operation: Operation, members: Mapping[str, Any]) -> Result:
    """Return a call's result from its ``members``, as they crossed from the engine."""
    if operation is Operation.CLASSIFY:
        return Choice(members["choice"], members["scores"])
    return Text(members["text"])
