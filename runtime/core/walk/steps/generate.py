"""Generating text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from runtime.core.declaration.spec import Spec, at
from runtime.core.requests.messages import under
from runtime.core.requests.sampling import UNASKED_CAP, one_cap
from runtime.core.walk import templates
from runtime.core.walk.call import Call, Operation, Result, Text
from runtime.core.walk.steps.kind import StepInput
from runtime.errors import ModelSetError


def _leave_the_request_to_the_chain(value: dict[str, Any]) -> dict[str, Any]:
    for key in ("messages", "model", "stream", "stream_options"):
        if key in value:
            raise PydanticCustomError("reserved", "{key} is set by the chain, not here", {"key": key})
    return value


Sampling = Annotated[dict[str, Any], AfterValidator(_leave_the_request_to_the_chain)]
"""The parameters of a chat completion request, which are passed to vLLM unchanged."""


class Generate(Spec):
    """Generate text. The last step's caller may override ``sampling``."""

    engine: str
    prompt: str | None = None
    sampling: Sampling = Field(default_factory=dict)

    name: ClassVar = "generate"
    runs_on: ClassVar = frozenset({"vllm", "fake"})
    can_answer: ClassVar = True
    gives: ClassVar = frozenset({"text"})
    examples: ClassVar[Sequence[str]] = ()
    outcomes: ClassVar[Sequence[Result]] = ()

    @field_validator("prompt")
    @classmethod
    def _read_prompt_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        read: Callable[[str], str] | None = (info.context or {}).get("read")
        if value is None or read is None:
            return value
        try:
            text = read(value) if value.endswith(".j2") else value
        except ModelSetError as error:
            raise PydanticCustomError("unreadable", "{reason}", {"reason": error.reason}) from error
        fault = templates.too_long(text)  # before anybody parses it
        if fault is not None:
            raise at((), f"bad template: line {fault.line}: {fault.reason}")
        return text

    def calls(self, step_input: StepInput) -> Sequence[Call]:
        """Return the one call: the conversation under the step's prompt. Raises UnrenderedPrompt."""
        messages = list(step_input.messages)
        if self.prompt is not None:
            messages = under(step_input.render(self.prompt), messages)
        body = {**self.params_of(step_input.max_tokens, step_input.params), "messages": messages}
        return [
            Call(step_input.step, step_input.step, self.engine, Operation.GENERATE, body, step_input.answers)
        ]

    def params_of(self, most: int, client: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the engine gets beside the messages.

        A client's member overrides the set's; null is OpenAI's "not given". ``most`` is the cap if
        neither has one.
        """
        theirs = one_cap({name: value for name, value in client.items() if value is not None})
        ours = one_cap(self.sampling)
        params = {**ours, **theirs}
        if "chat_template_kwargs" in ours and "chat_template_kwargs" in theirs:
            params["chat_template_kwargs"] = {
                **ours["chat_template_kwargs"],
                **theirs["chat_template_kwargs"],
            }
        cap = params.get("max_tokens")
        if cap is None:
            params.pop("max_tokens", None)
            return {**params, UNASKED_CAP: most}
        if ours.get("min_tokens") and "min_tokens" not in theirs:
            params["min_tokens"] = min(ours["min_tokens"], cap)
        return params

    def take(self, results: Mapping[str, Result]) -> Result:
        """Return what the one call has come to."""
        (result,) = results.values()
        return result

    def example(self, text: str = "") -> Result:
        """Return ``text`` as if it had been generated."""
        return Text(text)
