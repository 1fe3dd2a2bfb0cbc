"""vLLM's refusals in the words of the API: which member of the request is wrong, and how.

vLLM raises exceptions of many kinds, in the words of its command line, or as pydantic's list of all
forms that something might have had. A client can do nothing with either; and an error that is the request's
own must not look like one of the engine's, which is asked again and counts against its health.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from runtime.errors import EngineUnavailable, InterlockError, InvalidRequest, Overloaded

_OF_THE_REQUEST = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
"""Kinds of exceptions by which vLLM and its libraries trip over a request that is not of the right form."""

_FORMS = ("structured_outputs", "response_format", "tool_choice", "tools")
"""Members by which an answer is given a form, of which a grammar is made."""

_FLAG = re.compile(r"--[a-z][a-z-]+")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DETAILS = re.compile(r"\s*\((?:parameter=.*|value=.*)\)\s*$", re.DOTALL)
_ENVIRONMENT = re.compile(r"\s*[^.]*\bVLLM_[A-Z_]+[^.]*\.?")
_OF_A_GRAMMAR = re.compile(r"grammar|schema|regex|choice|structured|JSON", re.IGNORECASE)
_LONGEST = 500
"""How many characters of vLLM's message a client gets: it quotes what was sent."""

_NO_PARSER = "the model set gives this step's engine no {} (in its engine_kwargs)"
_REWORDED = (
    (r"enable-auto-tool-choice|tool-call-parser", "no tools: " + _NO_PARSER.format("tool_call_parser")),
    (r"reasoning-parser|reasoning-config", "no thoughts: " + _NO_PARSER.format("reasoning_parser")),
    (r"You must use one kind of structured outputs", "structured_outputs says no form of an answer"),
    (r"is not a multimodal model", "messages: this model reads text alone"),
    (r"TextEncodeInput must be", "messages: half of a surrogate pair is no text"),
)
"""vLLM's message (a regular expression), and the text that a client gets instead."""


def refused_by(
    error: BaseException, body: Mapping[str, Any], *, generated: int = 0, default: str | None = "messages"
) -> InterlockError:
    """Return the error that a client gets for what vLLM, or making its request, has raised.

    ``generated`` tokens show that the request was right. ``default`` is what it is about if nobody says.
    """
    cause = _root(error)
    if isinstance(cause, InterlockError):
        return cause
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "GracefulHTTPError" in kinds:
        return Overloaded(str(cause))
    if isinstance(cause, ValidationError):
        return refused_form(cause, body)
    if "GenerationError" in kinds:
        return _without_form(cause, body)
    of_request = "TemplateError" in kinds or isinstance(cause, (*_OF_THE_REQUEST, RecursionError))
    if "VLLMClientError" in kinds or (of_request and not generated):
        return refused_with(_message(cause), getattr(cause, "parameter", None), body, default=default)
    return EngineUnavailable(f"vLLM failed: {type(cause).__name__}: {_message(cause)}")


def refused_with(
    raw: str, param: str | None, body: Mapping[str, Any], *, default: str | None = "messages"
) -> InvalidRequest:
    """Return the refusal for vLLM's ``raw`` message, which blames ``param`` if it blames anything."""
    message = _ENVIRONMENT.sub("", _DETAILS.sub("", raw))
    if "context length" in message or "max_model_len" in message or param == "input_tokens":
        named = param if param in {"max_tokens", "max_completion_tokens"} else "messages"
        text = message.replace("max_model_len=max_total_tokens=", "the model's context, in tokens: ")
        return InvalidRequest(_cut(text), param=named, code="context_length_exceeded")
    if re.search(r"validation errors? for", message):
        return InvalidRequest(about_messages(body.get("messages")), param="messages")
    param = _member(param, body) or _named_in(message, body)
    if param is None and _OF_A_GRAMMAR.search(message):
        param = _first(_FORMS, body)
    param = param or default
    for pattern, text in _REWORDED:
        if re.search(pattern, message):
            return InvalidRequest(text, param=param)
    if _FLAG.search(message):
        message = "the engine of this step is not configured for it by the model set"
    begins = param is None or message.lstrip("`'").startswith(param)
    return InvalidRequest(_cut(message) if begins else f"{param}: {_cut(message)}", param=param)


def refused_form(error: ValidationError, body: Mapping[str, Any]) -> InvalidRequest:
    """Return what is wrong with the form of a body, in one sentence, of pydantic's many."""
    worst = max(error.errors(include_url=False), key=_specificity)
    place = [part for part in worst["loc"] if _is_place(part)]
    param = str(place[0]) if place and isinstance(place[0], str) else "messages"
    if param == "messages":
        return InvalidRequest(about_messages(body.get("messages")), param="messages")
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return InvalidRequest(f"{path} {_wrong(worst)}", param=param)


def culprit(body: Mapping[str, Any], takes: Callable[[Mapping[str, Any]], bool]) -> str | None:
    """Return the member without which ``takes`` takes the body, if there is one. It has to be quick."""
    without = ({key: value for key, value in body.items() if key != name} for name in body)
    return next((name for name, rest in zip(body, without, strict=True) if takes(rest)), None)


def _root(error: BaseException) -> BaseException:
    """Return what vLLM has wrapped in an error that says that generating failed."""
    wrapped = type(error).__name__ == "EngineGenerateError" and error.__cause__ is not None
    return _root(error.__cause__) if wrapped and error.__cause__ is not None else error


def _without_form(error: BaseException, body: Mapping[str, Any]) -> InterlockError:
    form = _first(_FORMS, body)
    if form is None:
        return EngineUnavailable(f"vLLM failed: {_message(error)}")
    return InvalidRequest(f"{form}: no answer of this form can be generated", param=form)


def _message(error: BaseException) -> str:
    text = _ADDRESS.sub("", str(error.args[0] if error.args else error))
    if isinstance(error, LookupError):
        return f"{text} is missing"
    return "it has not the form that it must have" if isinstance(error, AttributeError) else text


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _member(param: str | None, body: Mapping[str, Any]) -> str | None:
    """Return the API's name of what vLLM blames."""
    return "top_logprobs" if param == "logprobs" and "top_logprobs" in body else param


def _named_in(message: str, body: Mapping[str, Any]) -> str | None:
    """Return the member of ``body`` that a message names first."""
    if re.match("n must", message):
        return "n"
    places = {name: re.search(rf"\b{re.escape(name)}\b", message) for name in body if name != "n"}
    found = [(place.start(), name) for name, place in places.items() if place is not None]
    return min(found)[1] if found else None


def _first(names: Iterable[str], body: Mapping[str, Any]) -> str | None:
    return next((name for name in names if body.get(name) is not None), None)


def _specificity(error: Any) -> tuple[bool, int]:
    """Rank errors of the forms that something might have had: the one that got furthest says most."""
    return error["type"] in _BOUNDS, len(error["loc"])


def _is_place(part: int | str) -> bool:
    """Say whether a part of a location is in the body, and not one of the forms that pydantic has tried."""
    if isinstance(part, int):
        return True
    return re.fullmatch(r"[a-z0-9_]+", part) is not None and part not in {"str", "int", "float", "bool"}


_BOUNDS = {
    "too_long": ("may have at most {max_length} entries", "max_length"),
    "too_short": ("must have at least {min_length} entries", "min_length"),
    "string_too_long": ("may have at most {max_length} characters", "max_length"),
    "string_too_short": ("must have at least {min_length} characters", "min_length"),
    "greater_than": ("must be more than {gt}", "gt"),
    "greater_than_equal": ("must be at least {ge}", "ge"),
    "less_than": ("must be less than {lt}", "lt"),
    "less_than_equal": ("must be at most {le}", "le"),
}
_TYPES = (
    ("bool", "must be true or false"),
    ("int", "must be a whole number"),
    ("float", "must be a number"),
    ("string", "must be a text"),
    ("list", "must be a list"),
    ("iterable", "must be a list"),
    ("tuple", "must be a list"),
    ("dict", "must be an object"),
    ("model", "must be an object"),
    ("dataclass", "must be an object"),
    ("missing", "is missing"),
)


def _wrong(error: Any) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind in _BOUNDS:
        return _BOUNDS[kind][0].format(**context)
    if kind in {"literal_error", "enum"}:
        return f"must be {context['expected']}"
    for begin, text in _TYPES:
        if kind.startswith(begin):
            return text
    return _cut(_ADDRESS.sub("", str(error["msg"]).replace("Input should be", "must be")))


_PARTS = ("text", "refusal", "image_url", "input_audio", "video_url", "file")
"""Types of the parts of a message."""


def about_messages(messages: Any) -> str:
    """Return what is wrong with messages that vLLM does not take, in one sentence."""
    if not isinstance(messages, list):
        return "messages must be a list"
    for number, message in enumerate(messages):
        if wrong := _about_message(message):
            return f"messages[{number}]{wrong}"
    return "messages are not of the form that they must have"


def _about_message(message: Any) -> str:
    if not isinstance(message, Mapping):
        return " must be an object"
    if not isinstance(message.get("role"), str):
        return ".role must be a text" if "role" in message else ".role is missing"
    content, calls = message.get("content"), message.get("tool_calls")
    if not isinstance(content, str | list | None):
        return ".content must be a text, or a list of parts"
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, str | Mapping):
            return f".content[{number}] must be an object"
        if isinstance(part, Mapping) and part.get("type") not in _PARTS:
            return f".content[{number}].type must be one of {', '.join(_PARTS)}"
    if not isinstance(calls, list | None):
        return ".tool_calls must be a list"
    for number, call in enumerate(calls or ()):
        if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
            return f".tool_calls[{number}] must be an object with a `function`"
    return ""
