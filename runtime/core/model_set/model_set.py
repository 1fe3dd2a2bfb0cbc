"""The model set as frozen values, parsed once.

``parse`` is the one way in: it refuses unknown keys, dangling references, bad durations and bad
templates with the file, the key's path and the nearest valid key, and leaves nothing to be found
out by a request. Reading files is the caller's: ``parse`` gets a function for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from runtime.core.declaration.document import Document, Problem, document_of
from runtime.core.declaration.nearest import nearest
from runtime.core.declaration.spec import Name, Spec, at
from runtime.core.declaration.units import Duration
from runtime.core.metering.cost import Price
from runtime.core.model_set.engines import ENGINE_KINDS, EngineSpec
from runtime.core.walk.chain import Chain
from runtime.errors import ModelSetError


class Warmup(Spec):
    """What a release is warmed with besides its samples, and how long all of it may take."""

    at_once: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (4,)
    """How many runs of each sample are under way together. Each size is run once."""
    prompt_tokens: tuple[Annotated[int, Field(ge=1, le=2**20)], ...] = ()
    """Lengths of prompts, in tokens, that every generating engine reads once."""
    timeout: Duration = 300.0


class ModelSet(Spec):
    """The unit that is swapped: engines, prompts, chains and limits, as one."""

    name: Name
    engines: Annotated[dict[Name, EngineSpec], Field(min_length=1)]
    chains: Annotated[dict[Name, Chain], Field(min_length=1)]
    warmup: Warmup = Warmup()
    rollback_window: Duration = 600.0
    strategy: Literal["beside", "sleep_live"] = "beside"
    cutover: Literal["automatic", "manual"] = "automatic"

    @model_validator(mode="after")
    def _pause_ends_by_itself(self) -> Self:
        if self.strategy == "sleep_live" and self.cutover == "manual":
            reason = "requests would wait until somebody promotes: sleep_live goes with an automatic cutover"
            raise at(("cutover",), reason)
        return self

    @model_validator(mode="after")
    def _engines_exist(self) -> Self:
        for chain_name, chain in self.chains.items():
            for position, step in enumerate(chain.steps):
                name, kind = step.kind.engine, step.kind.name
                key = ("chains", chain_name, "steps", position, kind, "engine")
                if name not in self.engines:
                    raise at(key, f"no engine is called {name!r}", nearest(name, list(self.engines)))
                if self.engines[name].kind not in step.kind.runs_on:
                    raise at(key, f"engine {name!r} of kind {self.engines[name].kind} cannot {kind}")
        return self

    @model_validator(mode="after")
    def _degraded_chains_exist(self) -> Self:
        for name, chain in self.chains.items():
            other = chain.degrade_to
            if other is not None and (other == name or other not in self.chains):
                reason = (
                    "a chain cannot stand in for itself" if other == name else f"no chain is called {other!r}"
                )
                raise at(("chains", name, "degrade_to"), reason, nearest(other, [*self.chains]))
        return self

    @model_validator(mode="after")
    def _prompt_lengths_fit(self) -> Self:
        for position, tokens in enumerate(self.warmup.prompt_tokens):
            for name in self.generating:
                limit = self.engines[name].context_length
                if limit is not None and tokens >= limit:
                    holds = f"engine {name!r} holds {limit} tokens, one of which is the answer"
                    raise at(("warmup", "prompt_tokens", position), f"{holds}; write less than {limit}")
        return self

    @property
    def prices(self) -> dict[str, Price]:
        """The prices of those engines that have one, by name."""
        return {name: spec.price.per_token for name, spec in self.engines.items() if spec.price is not None}

    @property
    def contexts(self) -> dict[str, int]:
        """The lengths of the contexts of those engines that declare one, in tokens, by name."""
        lengths = ((name, spec.context_length) for name, spec in self.engines.items())
        return {name: length for name, length in lengths if length is not None}

    @property
    def generating(self) -> tuple[str, ...]:
        """Names of the engines that generate steps call."""
        steps = (step for chain in self.chains.values() for step in chain.steps)
        return tuple(dict.fromkeys(step.kind.engine for step in steps if step.kind.can_answer))


def parse(document: Any, source: str, read: Callable[[str], str]) -> ModelSet:
    """Return the model set that ``document`` (parsed YAML) declares.

    ``source`` is the file's path, for messages. ``read`` returns the text of a prompt file named
    relative to it.

    Raises:
        ModelSetError: with the file, the key's path, the reason and the nearest valid key.

    """
    read_in = document_of(document, source)
    model_set = parse_document(read_in, read)
    if read_in.problems:
        raise read_in.refusal(read_in.problems)
    return model_set


def parse_document(document: Document, read: Callable[[str], str]) -> ModelSet:
    """Return the model set that a document declares; what is wrong with the document as such is not reported.

    Raises:
        ModelSetError: with the file, the line, the key's path, the reason and the nearest valid key, and
            with what else is wrong.

    """
    if not isinstance(document.value, Mapping):
        if document.problems:
            raise document.refusal(document.problems)
        raise ModelSetError(document.source, "", "a model set is a mapping with name, engines and chains")
    try:
        return ModelSet.model_validate(document.value, context={"read": read})
    except ValidationError as error:
        found = [_problem(detail, document.value) for detail in error.errors(include_url=False)]
        raise document.refusal([*document.problems, *found]) from error


def _problem(detail: ErrorDetails, document: Mapping[str, Any]) -> Problem:
    """Return what one of pydantic's errors says, with the key as it is in the document."""
    context = detail.get("ctx", {})
    path = _path_in(document, detail["loc"])
    if detail["type"] == "unknown_key":
        # It explains most others: what is missing, what has the wrong form.
        return Problem((*path, context["key"]), detail["msg"], context["nearest"], first=True)
    if detail["type"] == "union_tag_invalid":
        suggestion = nearest(str(context.get("tag")), ENGINE_KINDS)
        return Problem((*path, "kind"), detail["msg"], suggestion)
    if detail["type"] == "union_tag_not_found":
        return Problem((*path, "kind"), f"is missing; it is one of: {', '.join(ENGINE_KINDS)}")
    text = context.get("text", False) or detail["type"] == "string_type"
    return Problem((*path, *context.get("below", [])), detail["msg"], context.get("nearest"), text=text)


def _path_in(document: Any, location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return ``location`` without what pydantic adds and the file lacks: tags of unions, ``[key]``."""
    path: list[str | int] = []
    node = document
    for position, part in enumerate(location):
        last = position == len(location) - 1
        inside = (isinstance(node, Mapping) and part in node) or (
            isinstance(node, Sequence) and isinstance(part, int) and part < len(node)
        )
        if inside:
            path.append(part)
            node = node[part]
        elif last and isinstance(node, Mapping) and part not in (*ENGINE_KINDS, "[key]"):
            path.append(part)
    return tuple(path)
