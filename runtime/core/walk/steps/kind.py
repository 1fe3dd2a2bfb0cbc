"""What every kind of step declares, and its input from the walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from runtime.core.requests.messages import Message
from runtime.core.walk.call import Call, Result


class StepInput(NamedTuple):
    """The input of a step: the conversation, and the results of earlier steps."""

    step: str
    """The step's id."""
    messages: Sequence[Message]
    """The conversation in its normal form."""
    params: Mapping[str, Any]
    """The client's parameters for the step that answers; empty for all others."""
    answers: bool
    """Whether the step is the one that answers."""
    max_tokens: int
    """How many tokens it may generate if neither the client nor the set limits it."""
    render: Callable[[str], str]
    """Renders a prompt with what earlier steps have come to. Raises UnrenderedPrompt."""


class StepKind(Protocol):
    """One kind of step, as a chain declares it."""

    name: ClassVar[str]
    """Its key in a step."""
    runs_on: ClassVar[frozenset[str]]
    """The kinds of engines that can do it."""
    can_answer: ClassVar[bool]
    """Whether its result can be the client's answer."""
    gives: ClassVar[frozenset[str]]
    """What later prompts may read of its result."""

    @property
    def engine(self) -> str:
        """The name of the engine that it calls."""
        ...

    @property
    def prompt(self) -> str | None:
        """The template that it renders, if it has one."""
        ...

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The set's parameters for the engine."""
        ...

    @property
    def examples(self) -> Sequence[str]:
        """The texts that its engine reads once, before any call."""
        ...

    @property
    def outcomes(self) -> Sequence[Result]:
        """All results that it can have, if they are few; else none."""
        ...

    def calls(self, step_input: StepInput) -> Sequence[Call]:
        """Return the calls that it wants made, all at once. Raises UnrenderedPrompt."""
        ...

    def take(self, results: Mapping[str, Result]) -> Result:
        """Return what the step has come to, from what its calls have, by their ids."""
        ...

    def example(self, text: str = "") -> Result:
        """Return a result that it may have: the one that makes the longest prompts, or ``text``."""
        ...
