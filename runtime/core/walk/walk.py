"""A walk through a chain, without I/O: which calls can be made now, given what earlier ones have come to.

Requests, warm-ups and bounds walk alike; none of them knows how a prompt is made or what a kind of step does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from runtime.core.requests.messages import Message, last_user_text
from runtime.core.walk import templates
from runtime.core.walk.call import Call, Result
from runtime.core.walk.chain import Chain, Step
from runtime.core.walk.steps.kind import StepInput
from runtime.errors import InvalidRequest

NOTHING_GIVEN: Mapping[str, Result] = MappingProxyType({})
"""Every step is called."""


class UnrenderedPrompt(InvalidRequest):
    """A step's prompt cannot be made from this conversation, or from what earlier steps have come to."""


class Walk:
    """One walk. Make the calls that are ``ready``, in any order or together; ``record`` what each came to.

    ``messages`` is the conversation in its normal form. ``params`` are the client's parameters:
    members that reach the engine of the step that answers, and override the step's own. ``given`` has what
    steps have come to, by id, that are not to be called. On a ``rehearsal`` results are made up, and a prompt
    that cannot be made from them stands as it is written.
    """

    def __init__(
        self,
        chain: Chain,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        given: Mapping[str, Result] = NOTHING_GIVEN,
        *,
        rehearsal: bool = False,
    ) -> None:
        self._chain = chain
        self._messages = list(messages)
        self._params = params
        self._given = given
        self._rehearsal = rehearsal
        self._results: dict[str, Mapping[str, Any]] = {}
        """What steps have come to, as prompts read it."""
        self._position = 0
        self._open: dict[str, Call] | None = None
        """The calls of the present step that have no result yet; None before they were requested."""
        self._back: dict[str, Result] = {}
        self._pass_given_steps()

    def ready(self) -> Sequence[Call]:
        """Return the calls that can be made now, each of them once; none while others are to be waited for.

        Raises:
            UnrenderedPrompt: the step's prompt cannot be rendered.

        """
        if self._open is not None:
            return ()
        step = self.step
        if step is None:
            return ()
        calls = step.kind.calls(self._input_of(step))
        self._open = {call.id: call for call in calls}
        return calls

    def record(self, call: Call, result: Result) -> None:
        """Take what a call has come to. With the last one of its step the walk goes on."""
        step = self.step
        if step is None or self._open is None or self._open.pop(call.id, None) is None:
            raise ValueError(f"the walk does not wait for call {call.id!r}")
        self._back[call.id] = result
        if not self._open:
            self._pass(step, step.kind.take(self._back))

    def suppose(self, result: Result) -> None:
        """Go on as if the step that the walk is at had come to ``result``."""
        step = self.step
        if step is None:
            raise ValueError("the walk is over")
        self._pass(step, result)

    @property
    def step(self) -> Step | None:
        """The step that the walk is at; None at its end. What is given is passed already."""
        steps = self._chain.steps
        return steps[self._position] if self._position < len(steps) else None

    def _pass(self, step: Step, result: Result) -> None:
        self._results[step.id] = result._asdict()
        self._position += 1
        self._open, self._back = None, {}
        self._pass_given_steps()

    def _pass_given_steps(self) -> None:
        step = self.step
        if step is not None and step.id in self._given:
            self._pass(step, self._given[step.id])

    def _input_of(self, step: Step) -> StepInput:
        answers = step.id == self._chain.answer
        params = self._params if answers else {}
        return StepInput(step.id, self._messages, params, answers, self._chain.max_tokens, self._render)

    def _render(self, prompt: str) -> str:
        variables = {
            "input": last_user_text(self._messages),
            "messages": self._messages,
            "steps": self._results,
        }
        try:
            return templates.render(prompt, variables)
        except templates.TemplateError as error:
            if self._rehearsal:
                return prompt
            message = f"the prompt cannot be made from these messages: {error}"
            raise UnrenderedPrompt(message, param="messages") from error
