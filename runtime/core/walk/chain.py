"""Chains as a model set declares them: steps in order, and what clients may send to them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from runtime.core.declaration.nearest import nearest
from runtime.core.declaration.spec import Identifier, Spec, at
from runtime.core.declaration.units import Duration, TimeShare
from runtime.core.requests.sampling import OPENABLE
from runtime.core.walk import templates
from runtime.core.walk.steps.generate import Generate, Sampling
from runtime.core.walk.steps.kind import StepKind
from runtime.core.walk.steps.route import Route

IMAGES = "images"
"""What a chain allows if its model sees, and its clients may send images in messages."""

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Names of variables of chat templates."""

OF_THE_RENDERER = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("raise_exception", "strftime_now", "namespace", "range", "conversation", "chat_template"),
        *("tokenize", "tokenizer_kwargs", "processor_kwargs", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "additional_special_tokens"),
    }
)
"""Names that a template is given, and options of who renders it: no variables of any template's own."""


class Step(Spec):
    """One declared step of a chain: exactly one of the kinds that there are."""

    id: Identifier
    route: Route | None = None
    generate: Generate | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.route is None) == (self.generate is None):
            raise PydanticCustomError("step_kind", "a step has exactly one of: route, generate")
        return self

    @property
    def kind(self) -> StepKind:
        """The one that is set."""
        kind: StepKind | None = self.route or self.generate
        assert kind is not None  # noqa: S101 - _one_kind has made sure
        return kind


class Sample(Spec):
    """A request of the kind that the chain gets; warm-up runs it on every replica."""

    messages: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    params: Sampling = Field(default_factory=dict)
    """What clients send beside messages: ``response_format``, ``tools``, ``max_tokens`` and the like."""


class Chain(Spec):
    """What an OpenAI client names as ``model``: steps in order, the last of which answers."""

    deadline: Duration = 60.0
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    answer: str
    samples: Annotated[tuple[Sample, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """What a step may generate at most by default, if the context has room for it."""
    degrade_to: str | None = None
    """Chain that answers instead for callers whose budget has no room for this one."""
    latency_budget: dict[str, TimeShare] = Field(default_factory=dict)
    """Step to its share of the deadline. A hop that takes longer goes on, and is counted as an overrun."""
    allow: tuple[str, ...] = ()
    """Members of vLLM's API, or ``images``, that clients may send to its answering step besides OpenAI's."""
    template_variables: tuple[Annotated[str, Field(pattern=VARIABLE, max_length=64)], ...] = ()
    """What clients may set of the model's chat template (``chat_template_kwargs``), to one value each."""

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        ids = [step.id for step in self.steps]
        for position, step_id in enumerate(ids):
            if step_id in ids[:position]:
                raise at(("steps", position, "id"), f"{step_id!r} is the id of an earlier step")
        if self.answer not in ids:
            raise at(("answer",), f"no step is called {self.answer!r}", nearest(self.answer, ids))
        if self.answer != ids[-1] or not self.steps[-1].kind.can_answer:
            raise at(("answer",), "the answer is the last step, and that step must be a generate step")
        for position, step in enumerate(self.steps):
            self._check_prompt(position, step, frozenset(ids[:position]))
        return self

    @model_validator(mode="after")
    def _opens_what_there_is(self) -> Self:
        openable = [*OPENABLE, IMAGES]
        for position, name in enumerate(self.allow):
            if name not in openable:
                reason = f"{name!r} cannot be opened to clients; there is: {', '.join(openable)}"
                raise at(("allow", position), reason, nearest(name, openable))
        for position, name in enumerate(self.template_variables):
            if name in OF_THE_RENDERER:
                raise at(("template_variables", position), f"{name!r} steers what renders the template")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        ids = [step.id for step in self.steps]
        for name in self.latency_budget:
            if name not in ids:
                raise at(("latency_budget", name), f"no step is called {name!r}", nearest(name, ids))
        shared = round(sum(self.latency_budget.values()), 6)
        if shared > self.deadline:
            reason = f"the shares are {shared:g} s together, over the deadline of {self.deadline:g} s"
            raise at(("latency_budget",), reason)
        return self

    @staticmethod
    def _check_prompt(position: int, step: Step, earlier: frozenset[str]) -> None:
        if step.kind.prompt is None:
            return
        fault = templates.check(step.kind.prompt, earlier)
        if fault is not None:
            line = f"line {fault.line}: " if fault.line else ""
            raise at(("steps", position, step.kind.name, "prompt"), f"bad template: {line}{fault.reason}")

    @property
    def generating(self) -> frozenset[str]:
        """Ids of the steps that generate text."""
        return frozenset(step.id for step in self.steps if step.kind.can_answer)

    @property
    def answering(self) -> Generate:
        """What the step that answers does."""
        call = self.steps[-1].generate
        assert call is not None  # noqa: S101 - _steps_fit_together has made sure
        return call

    @property
    def engines(self) -> frozenset[str]:
        """Names of the engines that the chain's steps call."""
        return frozenset(step.kind.engine for step in self.steps)

    @property
    def latency_objective(self) -> float:
        """Seconds within which a request is answered in time.

        The sum of its latency budget, if that has a share for every step; its deadline otherwise.
        """
        complete = len(self.latency_budget) == len(self.steps)
        return round(sum(self.latency_budget.values()), 6) if complete else self.deadline
