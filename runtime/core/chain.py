"""A chain's walk, without I/O: which call comes next, given what the earlier ones returned.

The gateway drives it for a request and the manager for a warm-up; neither knows how a prompt is
made or what a route's answer means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from runtime.core import templates
from runtime.core.specs import Chain, Generate, Step
from runtime.errors import InvalidRequest

_OF_THE_CHAIN = frozenset({"model", "messages", "stream", "stream_options", "request_id", "user"})
"""Keys of a client's body that say something to the chain and nothing to the last engine."""

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

    ``messages`` is the conversation in OpenAI's form. ``params`` is the client's body: sampling
    parameters in it reach the engine of the last step and override the step's own; null is OpenAI's
    "not given" and overrides nothing. ``given`` has results of steps, by id, that are not to be called.
    """

    def __init__(
        self,
        chain: Chain,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        given: Mapping[str, Mapping[str, Any]] = NOTHING_GIVEN,
    ) -> None:
        self._chain = chain
        self._messages = list(messages)
        self._params = {
            key: value for key, value in params.items() if key not in _OF_THE_CHAIN and value is not None
        }
        self._given = given
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
            messages = [{"role": "system", "content": self._render(call.prompt)}, *messages]
        return {**call.sampling, **(self._params if final else {}), "messages": messages}

    def _render(self, prompt: str) -> str:
        variables = {
            "input": last_user_text(self._messages),
            "messages": self._messages,
            "steps": self._results,
        }
        try:
            return templates.render(prompt, variables)
        except templates.TemplateError as error:
            raise InvalidRequest(
                f"the prompt cannot be made from these messages: {error}", param="messages"
            ) from error


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last message of role ``user``, or of the last message if there is none."""
    chosen = next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1])
    content = chosen.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))
