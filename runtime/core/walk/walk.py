"""A chain's walk, without I/O: which call comes next, given what the earlier ones returned.

The gateway drives it for a request and the manager for a warm-up; neither knows how a prompt is
made or what a route's answer means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from runtime.core.requests.messages import Message, text_of, under
from runtime.core.requests.sampling import one_cap
from runtime.core.walk import templates
from runtime.core.walk.chain import Chain, Generate, Step
from runtime.errors import InvalidRequest

UNASKED_CAP = "interlock_max_tokens"
"""Key of a body: how many tokens an answer has at most if the context has room for so many. Nobody has asked
for it, so it makes no prompt too long, as ``max_tokens`` does. Whoever hosts the engine takes it out."""

NOTHING_GIVEN: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
"""Every step is called."""


@dataclass(frozen=True)
class Hop:
    """A call to make: which engine, which operation, and the JSON body."""

    step: str
    engine: str
    operation: Literal["classify", "generate"]
    body: Mapping[str, Any]
    final: bool


class ChainRun:
    """One walk through a chain. Call ``next_hop``, make the call, ``record`` its result, repeat.

    ``messages`` is the conversation in its normal form. ``params`` is what the client says beside it:
    members that reach the engine of the last step and override the step's own; null is OpenAI's "not
    given" and overrides nothing. ``given`` has results of steps, by id, that are not to be called. On a
    ``rehearsal`` results are made up, and a prompt that cannot be made from them stands as it is written.
    """

    def __init__(
        self,
        chain: Chain,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        given: Mapping[str, Mapping[str, Any]] = NOTHING_GIVEN,
        *,
        rehearsal: bool = False,
    ) -> None:
        self._chain = chain
        self._messages = list(messages)
        self._params = params
        self._given = given
        self._rehearsal = rehearsal
        self._results: dict[str, Mapping[str, Any]] = {}
        self._position = 0

    def next_hop(self) -> Hop | None:
        """Return the next call, or None after the last.

        Raises:
            InvalidRequest: the step's prompt cannot be rendered from this conversation.

        """
        self._pass_given_steps()
        if self._position == len(self._chain.steps):
            return None
        step = self._chain.steps[self._position]
        final = self._position == len(self._chain.steps) - 1
        if step.route is not None:
            choices = {name: list(examples) for name, examples in step.route.choices.items()}
            body: dict[str, Any] = {"input": last_user_text(self._messages), "choices": choices}
            return Hop(step.id, step.route.engine, "classify", body, final)
        return Hop(step.id, step.call.engine, "generate", self._generate_body(step, final=final), final)

    def record(self, result: Mapping[str, Any]) -> None:
        """Take what the hop returned (``choice`` or ``text``) and go on to the next step."""
        self._results[self._chain.steps[self._position].id] = result
        self._position += 1

    def _pass_given_steps(self) -> None:
        for step in self._chain.steps[self._position :]:
            if step.id not in self._given:
                return
            self.record(self._given[step.id])

    def _generate_body(self, step: Step, *, final: bool) -> dict[str, Any]:
        call = step.call
        assert isinstance(call, Generate)  # noqa: S101 - next_hop has told the two apart
        messages = self._messages
        if call.prompt is not None:
            messages = under(self._render(call.prompt), messages)
        said = said_for(step, self._chain.max_tokens, self._params if final else {})
        return {**said, "messages": messages}

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
            raise InvalidRequest(
                f"the prompt cannot be made from these messages: {error}", param="messages"
            ) from error


def said_for(step: Step, most: int, client: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the engine of a generating step is told beside the messages.

    The client's word counts before the set's. ``most`` is the cap if neither has one.
    """
    assert isinstance(step.call, Generate)  # noqa: S101 - a route is told nothing
    theirs = one_cap({name: value for name, value in client.items() if value is not None})
    ours = one_cap(step.call.sampling)
    said = {**ours, **theirs}
    if "chat_template_kwargs" in ours and "chat_template_kwargs" in theirs:
        said["chat_template_kwargs"] = {**ours["chat_template_kwargs"], **theirs["chat_template_kwargs"]}
    cap = said.get("max_tokens")
    if cap is None:
        said.pop("max_tokens", None)
        return {**said, UNASKED_CAP: most}
    if ours.get("min_tokens") and "min_tokens" not in theirs:
        said["min_tokens"] = min(ours["min_tokens"], cap)
    return said


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last message of role ``user``, or of the last message if there is none."""
    return text_of(
        next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1]).get("content")
    )
