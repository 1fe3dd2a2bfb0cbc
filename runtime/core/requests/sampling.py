"""The parameters of a chat completion request: each member, its form and its bounds.

One list for clients (``ClientMembers``; ``OpenedMembers`` where their chain opens more to them) and for model
sets, which may use more (``SetMembers``): an operator may set what a client may not. A member that is in
neither is not OpenAI's, or sets something that the chain sets itself. Null is OpenAI's "not given".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from runtime.core.declaration.nearest import nearest

UNASKED_CAP = "interlock_max_tokens"
"""Key of a body: how many tokens an answer has at most if the context has room for so many. Nobody has asked
for it, so it makes no prompt too long, as ``max_tokens`` does. Whoever hosts the engine takes it out."""

MAX_CHOICES = 128
"""How many answers one request may ask for."""

MAX_STOP_STRINGS = 4
"""How many strings may end an answer, as OpenAI has it."""

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
_Count = Annotated[int, Field(ge=1, le=_INT32)]
_TokenId = Annotated[int, Field(ge=0, le=_INT32)]
_Stop = Annotated[str, Field(min_length=1, max_length=1024)]
_Word = Annotated[str, Field(min_length=1, max_length=256)]
_Bias = Annotated[float, Field(ge=-100.0, le=100.0)]
_Tokens = Annotated[list[_TokenId], Field(max_length=2**18, fail_fast=True)]

_STRICT = ConfigDict(strict=True, extra="forbid")
_OPEN = ConfigDict(strict=True, extra="allow")


@with_config(_OPEN)
class _Function(TypedDict, total=False):
    """A function that the model may call, or that it must."""

    name: Required[Annotated[str, Field(min_length=1, max_length=64)]]
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


@with_config(_OPEN)
class _Tool(TypedDict):
    """A tool: OpenAI has functions only."""

    type: Literal["function"]
    function: _Function


@with_config(_OPEN)
class _JsonSchema(TypedDict):
    """A schema that the answer follows."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    schema: dict[str, Any]


@with_config(_STRICT)
class _Text(TypedDict):
    type: Literal["text"]


@with_config(_STRICT)
class _JsonObject(TypedDict):
    type: Literal["json_object"]


@with_config(_STRICT)
class _JsonSchemaFormat(TypedDict):
    type: Literal["json_schema"]
    json_schema: _JsonSchema


@with_config(_OPEN)
class _StructuralTag(TypedDict):
    type: Literal["structural_tag"]


_Format = Annotated[_Text | _JsonObject | _JsonSchemaFormat | _StructuralTag, Field(discriminator="type")]


@with_config(_STRICT)
class ClientMembers(TypedDict, total=False):
    """What a client may send: OpenAI's members, and those of vLLM's sampling that concern its own answer."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None
    top_k: Annotated[int, Field(ge=-1, le=_INT32)] | None
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None
    max_tokens: _Count | None
    max_completion_tokens: _Count | None
    min_tokens: Annotated[int, Field(ge=0, le=_INT32)] | None
    seed: Annotated[int, Field(ge=-_INT64 - 1, le=_INT64)] | None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOP_STRINGS)] | None
    stop_token_ids: Annotated[list[_TokenId], Field(max_length=1024)] | None
    include_stop_str_in_output: bool | None
    ignore_eos: bool | None
    bad_words: Annotated[list[_Word], Field(max_length=1024)] | None
    allowed_token_ids: _Tokens | None
    logit_bias: (
        Annotated[dict[Annotated[str, Field(pattern=r"^\d{1,10}$")], _Bias], Field(max_length=1024)] | None
    )
    frequency_penalty: _Penalty | None
    presence_penalty: _Penalty | None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=100.0)] | None
    logprobs: bool | None
    top_logprobs: Annotated[int, Field(ge=0, le=1024)] | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    response_format: _Format | None
    tools: Annotated[list[_Tool], Field(min_length=1, max_length=128)] | None
    tool_choice: Literal["none", "auto", "required"] | _Tool | None
    parallel_tool_calls: bool | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    include_reasoning: bool | None
    thinking_token_budget: Annotated[int, Field(ge=-1, le=_INT32)] | None


@with_config(_STRICT)
class _StructuredOutputs(TypedDict, total=False):
    """What form an answer has, in vLLM's words: one of the first six."""

    json: str | dict[str, Any] | None
    regex: Annotated[str, Field(max_length=16_384)] | None
    choice: Annotated[list[str], Field(min_length=1, max_length=1024)] | None
    grammar: str | None
    json_object: bool | None
    structural_tag: str | None
    disable_any_whitespace: bool | None
    disable_additional_properties: bool | None
    whitespace_pattern: Annotated[str, Field(max_length=1024)] | None


@with_config(_STRICT)
class _RepetitionDetection(TypedDict, total=False):
    """From which repetition on an answer is ended."""

    max_pattern_size: Annotated[int, Field(ge=0, le=_INT32)]
    min_pattern_size: Annotated[int, Field(ge=0, le=_INT32)]
    min_count: Annotated[int, Field(ge=0, le=_INT32)]


_Scalar = bool | int | _Number | Annotated[str, Field(max_length=4096)]
_XArgs = Annotated[dict[_Word, _Scalar | list[_Scalar]], Field(max_length=64)]


@with_config(_STRICT)
class OpenedMembers(ClientMembers, total=False):
    """A client's members, and those that a chain can open to its clients (``allow``)."""

    add_generation_prompt: bool | None
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None
    continue_final_message: bool | None
    documents: Annotated[list[dict[_Word, str]], Field(max_length=256)] | None
    length_penalty: _Number | None
    logprob_token_ids: Annotated[list[_TokenId], Field(max_length=1024)] | None
    priority: Annotated[int, Field(ge=-_INT64 - 1, le=_INT64)] | None
    repetition_detection: _RepetitionDetection | None
    return_tokens_as_token_ids: bool | None
    structured_outputs: _StructuredOutputs | None
    use_beam_search: bool | None
    vllm_xargs: _XArgs | None


@with_config(_STRICT)
class SetMembers(OpenedMembers, total=False):
    """What a model set may use: a client's members, those that it can open, and vLLM's own."""

    add_special_tokens: bool | None
    chat_template_kwargs: dict[str, Any] | None
    echo: bool | None
    kv_transfer_params: dict[str, Any] | None
    media_io_kwargs: dict[str, Any] | None
    mm_processor_kwargs: dict[str, Any] | None
    prompt_logprobs: Annotated[int, Field(ge=-1, le=1024)] | None
    return_token_ids: bool | None
    stream_interval: _Count | None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=_INT32)] | None
    truncation_side: Literal["left", "right"] | None


OPENABLE = tuple(name for name in OpenedMembers.__annotations__ if name not in ClientMembers.__annotations__)
"""What a chain can open to its clients."""

_SET = TypeAdapter(SetMembers)

_MEMBERS = tuple(SetMembers.__annotations__)


@dataclass(frozen=True)
class MemberFault:
    """What is wrong with a member: where below the mapping, why, and what was probably meant."""

    key: tuple[str | int, ...]
    reason: str
    nearest: str | None = None


def faults_of(members: Mapping[str, Any]) -> Iterator[MemberFault]:
    """Yield what is wrong with the members that a model set gives, once for each."""
    try:
        _SET.validate_python(dict(members))
    except ValidationError as error:
        chosen: dict[str | int, ErrorDetails] = {}
        for detail in error.errors(include_url=False, include_input=False):
            # Each alternative of a union reports its own fault: that of the right type says more.
            kept = chosen.setdefault(detail["loc"][0], detail)
            if kept["type"].endswith("_type") and not detail["type"].endswith("_type"):
                chosen[detail["loc"][0]] = detail
        yield from (_fault(members, detail) for detail in chosen.values())


def _fault(members: Mapping[str, Any], detail: ErrorDetails) -> MemberFault:
    path = _path(members, detail["loc"])
    if detail["type"] == "extra_forbidden":
        return MemberFault(path, "no such sampling member", nearest(str(path[-1]), _MEMBERS))
    if detail["type"] == "missing":
        return MemberFault((*path, detail["loc"][-1]), "is missing")
    return MemberFault(path, detail["msg"][0].lower() + detail["msg"][1:])


def _path(members: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return ``location`` as far as it is in ``members``: pydantic adds the names of alternatives."""
    path: list[str | int] = []
    node = members
    for part in location:
        inside = (
            part in node if isinstance(node, Mapping) else isinstance(node, list) and isinstance(part, int)
        )
        if inside:
            node = node[part]
            path.append(part)
    return tuple(path)


__all__ = [
    "MAX_CHOICES",
    "MAX_STOP_STRINGS",
    "OPENABLE",
    "ClientMembers",
    "MemberFault",
    "OpenedMembers",
    "SetMembers",
    "faults_of",
]


def one_cap(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``members`` with the cap on an answer under one name; of two the newer name's counts."""
    newer = members.get("max_completion_tokens")
    renamed = {name: value for name, value in members.items() if name != "max_completion_tokens"}
    return renamed if newer is None else {**renamed, "max_tokens": newer}
