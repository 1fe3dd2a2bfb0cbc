"""Choosing by meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from runtime.core.declaration.spec import Identifier, Spec
from runtime.core.requests.messages import last_user_text
from runtime.core.walk.call import Call, Choice, Operation, Result
from runtime.core.walk.steps.kind import StepInput


class Route(Spec):
    """Choose by meaning: the choice whose examples lie nearest to the input, by an encoder."""

    engine: str
    choices: Annotated[dict[Identifier, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=2)]

    name: ClassVar = "route"
    runs_on: ClassVar = frozenset({"transformers", "fake"})
    can_answer: ClassVar = False
    gives: ClassVar = frozenset({"choice", "scores"})
    prompt: ClassVar[str | None] = None
    sampling: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def examples(self) -> Sequence[str]:
        """The texts of all choices."""
        return [text for texts in self.choices.values() for text in texts]

    @property
    def outcomes(self) -> Sequence[Result]:
        """Each choice."""
        return [self._chosen(name) for name in self.choices]

    def calls(self, step_input: StepInput) -> Sequence[Call]:
        """Return the one call: the last text of the user, and the choices."""
        choices = {name: list(examples) for name, examples in self.choices.items()}
        body = {"input": last_user_text(step_input.messages), "choices": choices}
        return [Call(step_input.step, step_input.step, self.engine, Operation.CLASSIFY, body)]

    def take(self, results: Mapping[str, Result]) -> Result:
        """Return what the one call has come to."""
        (result,) = results.values()
        return result

    def example(self, text: str = "") -> Result:  # noqa: ARG002 - a choice is no text
        """Return the choice with the longest name."""
        return self._chosen(max(self.choices, key=len))

    def _chosen(self, choice: str) -> Choice:
        return Choice(choice, {name: float(name == choice) for name in self.choices})
