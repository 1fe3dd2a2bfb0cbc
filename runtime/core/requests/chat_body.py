"""The body of a chat completion request: its form, for validation and for the API's description.

A fault is described in the API's own words: the member's place, what it must be, and one of
OpenAI's codes. A client's own text is repeated in part only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from runtime.core.requests.json_body import shown
from runtime.core.requests.messages import MOST_MESSAGES, normal_messages
from runtime.core.requests.sampling import OpenedMembers
from runtime.errors import InvalidRequest

LONGEST_MODEL = 256
"""Characters of a model's name. A chain's has 63 at most; a longer one is not looked up."""


class TextPart(TypedDict):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """A part of a message that is an image; only where the chain takes them."""

    type: Literal["image_url"]
    image_url: dict[str, str]


class ChatMessage(TypedDict, total=False):
    """A message as clients send it."""

    role: Required[Literal["system", "developer", "user", "assistant", "tool", "function"]]
    content: str | list[TextPart | ImagePart] | None
    name: str | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    reasoning: str | None


Messages = Annotated[
    list[dict[str, Any]],
    PlainValidator(
        normal_messages,
        json_schema_input_type=Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)],
    ),
]


@with_config(ConfigDict(strict=True, extra="forbid"))
class StreamOptions(TypedDict, total=False):
    """What a stream has besides the answer. What is not ``include_usage`` changes nothing."""

    include_usage: bool | None
    include_obfuscation: bool | None
    continuous_usage_stats: bool | None


LONGEST_VARIABLE = 256
"""Characters of what a variable of a chat template is set to: they are switches, levels and dates."""

_Variable = Annotated[str, Field(min_length=1, max_length=64)]
_Value = (
    bool
    | int
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=LONGEST_VARIABLE)]
    | None
)


@with_config(ConfigDict(strict=True, extra="forbid"))
class ChatBody(OpenedMembers, total=False):
    """What ``POST /v1/chat/completions`` takes, less the members that it ignores."""

    model: Required[Annotated[str, Field(max_length=LONGEST_MODEL)]]
    messages: Required[Messages]
    stream: bool | None
    stream_options: StreamOptions | None
    chat_template_kwargs: Annotated[dict[_Variable, _Value], Field(max_length=32)] | None


_CHAT = TypeAdapter(ChatBody)


def checked(body: Mapping[str, Any]) -> ChatBody:
    """Return ``body`` with its messages in their normal form.

    Raises:
        InvalidRequest: a member is of the wrong form or out of bounds; names the place, the worst first.

    """
    try:
        return _CHAT.validate_python(body)
    except ValidationError as error:
        raise _refusal(body, error) from None


_LOOKED_AT = 64
"""How many faults of a body are examined to choose the one that is reported."""


def _refusal(body: Mapping[str, Any], error: ValidationError) -> InvalidRequest:
    details = error.errors(include_url=False, include_input=False)
    member = details[0]["loc"][:1]
    # Each alternative of a union reports its own fault: the one that got furthest says most.
    of_it = [detail for detail in details[:_LOOKED_AT] if detail["loc"][:1] == member]
    chosen = max(of_it, key=lambda detail: (len(_within(body, detail["loc"])), not _of_type(detail)))
    place = _within(body, chosen["loc"])
    faults = [_fault_text(chosen)]
    if _of_type(chosen) or chosen["type"] == "literal_error":
        faults += [
            _fault_text(other) for other in of_it if _of_type(other) and _within(body, other["loc"]) == place
        ]
    if chosen["type"] == "missing":
        place = [*place, str(chosen["loc"][-1])]
    param, why = ".".join(place), " or ".join(dict.fromkeys(faults)).replace("or must be", "or")
    return InvalidRequest(f"{param}: {why}", param=param, code=_code(chosen["type"]))


def _of_type(detail: ErrorDetails) -> bool:
    return detail["type"].endswith("_type")


def _within(body: Any, location: tuple[str | int, ...]) -> list[str]:
    """Return ``location`` as far as the body has it: pydantic adds the names of alternatives."""
    place, node = [], body
    for part in location:
        inside = (
            part in node if isinstance(node, Mapping) else isinstance(node, list) and isinstance(part, int)
        )
        if inside:
            node = node[part]
            place.append(shown(str(part)))
    return place


def _code(kind: str) -> str:
    if kind == "missing":
        return "missing_required_parameter"
    if kind == "extra_forbidden":
        return "unknown_parameter"
    return "invalid_type" if kind.endswith("_type") else "invalid_value"


_Words = Callable[[ErrorDetails], str]


def _always(text: str) -> _Words:
    return lambda _: text


def _with(text: str) -> _Words:
    return lambda detail: text.format(**detail.get("ctx", {}))


def _other(detail: ErrorDetails) -> str:
    return "must be of another form: " + detail["msg"][:1].lower() + detail["msg"][1:]


_OBJECT, _ARRAY, _NUMBER = "must be an object", "must be an array", "must be a number"

_WORDS: Mapping[str, _Words] = {
    "missing": _always("is missing"),
    "extra_forbidden": _always("there is no such member"),
    "string_type": _always("must be a string"),
    "int_type": _always("must be a whole number, of 64 bits at most"),
    "int_from_float": _always("must be a whole number, of 64 bits at most"),
    "float_type": _always(_NUMBER),
    "finite_number": _always("must be a finite number"),
    "bool_type": _always("must be true or false"),
    "list_type": _always(_ARRAY),
    "dict_type": _always(_OBJECT),
    "model_type": _always(_OBJECT),
    "model_attributes_type": _always(_OBJECT),
    "literal_error": _with("must be {expected}"),
    "greater_than": _with("must be more than {gt}"),
    "greater_than_equal": _with("must be at least {ge}"),
    "less_than": _with("must be less than {lt}"),
    "less_than_equal": _with("must be at most {le}"),
    "too_short": _with("must have {min_length} of them at least"),
    "too_long": _with("must have {max_length} of them at most"),
    "string_too_short": _always("must not be empty"),
    "string_too_long": _with("is too long: {max_length} characters at most"),
    "string_pattern_mismatch": _always("must be the number of a token"),
    "union_tag_invalid": _with("its {discriminator} must be one of {expected_tags}"),
    "union_tag_not_found": _with("has no {discriminator}"),
}
"""What to say of each of pydantic's findings."""


def _fault_text(detail: ErrorDetails) -> str:
    return _WORDS.get(detail["type"], _other)(detail)
