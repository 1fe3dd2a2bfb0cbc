"""A conversation in its normal form, which everything that reads it later gets: prompts, counts, engines.

It is what vLLM makes of the same messages before it fills the model's chat template in: texts in parts are
one text, an answer without content has an empty one, and members that no template sees are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from runtime.core.requests.json_body import nests_too_deep, shown
from runtime.errors import InvalidRequest

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

MOST_MESSAGES = 4096
MOST_TOOL_CALLS = 128
LONGEST_NAME = 256

_TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Types of parts that are text, and the member that has it."""

_IMAGE = "image_url"

_OF_THE_OPERATOR = frozenset({"system", "developer"})

Message = dict[str, Any]


def normal_messages(messages: Any) -> list[Message]:
    """Return a client's ``messages`` in their normal form.

    A message has ``role`` and ``content`` (a string; parts of OpenAI's form only if images are among them),
    and what it has of ``name``, ``tool_calls``, ``tool_call_id`` and ``reasoning``.

    Raises:
        InvalidRequest: they are no conversation; names the place.

    """
    if not isinstance(messages, list):
        _refuse("messages", "must be an array of messages", "invalid_type")
    if not messages:
        _refuse("messages", "must have at least one message")
    if len(messages) > MOST_MESSAGES:
        _refuse("messages", f"has {len(messages)} messages; {MOST_MESSAGES} at most")
    return [_message(message, f"messages.{position}") for position, message in enumerate(messages)]


def text_of(content: Any) -> str:
    """Return the text of a message's content, in whatever form it is; texts in parts are lines of it."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) for part in parts if isinstance(part, Mapping) and "text" in part
    )


def has_images(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether normal ``messages`` show the model more than text."""
    return any(isinstance(message.get("content"), list) for message in messages)


def under(prompt: str, messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` with ``prompt`` as their first, which is the only system message before them.

    Models' templates refuse a second one. What the conversation itself begins with, as ``system`` or as
    ``developer``, follows after an empty line.
    """
    begins = next((n for n, m in enumerate(messages) if m.get("role") not in _OF_THE_OPERATOR), len(messages))
    texts = [prompt, *(text_of(message.get("content")) for message in messages[:begins])]
    return [{"role": "system", "content": "\n\n".join(text for text in texts if text)}, *messages[begins:]]


def _message(message: Any, at: str) -> Message:
    if not isinstance(message, dict):
        _refuse(at, "must be an object with role and content", "invalid_type")
    role = message.get("role")
    if role not in ROLES:
        _refuse(f"{at}.role", f"must be one of: {', '.join(ROLES)}")
    normal: Message = {"role": role, "content": _content(message, role, at)}
    if message.get("name") is not None:
        normal["name"] = _string(message["name"], f"{at}.name", LONGEST_NAME)
    if role == "assistant":
        normal |= _of_assistant(message, at)
    elif role == "tool" and message.get("tool_call_id") is not None:
        normal["tool_call_id"] = _string(message["tool_call_id"], f"{at}.tool_call_id", LONGEST_NAME)
    return normal


def _content(message: Mapping[str, Any], role: str, at: str) -> str | list[dict[str, Any]]:
    content, at = message.get("content"), f"{at}.content"
    if isinstance(content, str):
        return content
    if content is None:
        if role not in {"assistant", "function"}:
            _refuse(at, "is missing: a string, or an array of parts", "missing_required_parameter")
        return ""
    if not isinstance(content, list):
        _refuse(at, "must be a string or an array of parts", "invalid_type")
    parts = [_part(part, f"{at}.{position}") for position, part in enumerate(content)]
    if any(isinstance(part, dict) for part in parts):
        return [
            {"type": "text", "text": part} if isinstance(part, str) else part
            for part in parts
            if part is not None
        ]
    return "\n".join(part for part in parts if isinstance(part, str))


def _part(part: Any, at: str) -> str | dict[str, Any] | None:
    """Return a part's text, an image's part, or None if there is nothing in it."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        _refuse(at, "must be a part: an object with a type", "invalid_type")
    kind = part.get("type")
    if kind == _IMAGE:
        return _image(part, at)
    if not isinstance(kind, str) or kind not in _TEXTS:
        got = f" {shown(kind)!r} is not taken;" if isinstance(kind, str) else ""
        _refuse(f"{at}.type", f"{got.lstrip()} parts are of type: {', '.join((*_TEXTS, _IMAGE))}".lstrip())
    text = part.get(_TEXTS[kind])
    if text is None and kind in {"text", "refusal"}:
        return None
    return _string(text, f"{at}.{_TEXTS[kind]}")


def _image(part: Mapping[str, Any], at: str) -> dict[str, Any]:
    image = part.get(_IMAGE)
    url = image.get("url") if isinstance(image, dict) else None
    return {"type": _IMAGE, _IMAGE: {"url": _string(url, f"{at}.{_IMAGE}.url")}}


def _of_assistant(message: Mapping[str, Any], at: str) -> Message:
    normal: Message = {}
    reasoning = message.get("reasoning")
    if reasoning is None:
        reasoning = message.get("reasoning_content")
    if reasoning is not None:
        normal["reasoning"] = _string(reasoning, f"{at}.reasoning")
    calls = message.get("tool_calls")
    if calls is None or calls == []:
        return normal
    if not isinstance(calls, list):
        _refuse(f"{at}.tool_calls", "must be an array", "invalid_type")
    if len(calls) > MOST_TOOL_CALLS:
        _refuse(f"{at}.tool_calls", f"has {len(calls)} calls; {MOST_TOOL_CALLS} at most")
    normal["tool_calls"] = [_tool_call(call, f"{at}.tool_calls.{n}") for n, call in enumerate(calls)]
    return normal


def _tool_call(call: Any, at: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        _refuse(at, "must be a call of type 'function', with a function")
    named = {"id": _string(call["id"], f"{at}.id", LONGEST_NAME)} if call.get("id") is not None else {}
    name = _string(function.get("name"), f"{at}.function.name", LONGEST_NAME)
    arguments = _string(function.get("arguments") or "{}", f"{at}.function.arguments")
    if nests_too_deep(arguments):  # vLLM parses them for the model's template
        _refuse(f"{at}.function.arguments", "has too many values, or nests them too deep")
    return {**named, "type": "function", "function": {"name": name, "arguments": arguments}}


def _string(value: Any, at: str, longest: int | None = None) -> str:
    if not isinstance(value, str):
        _refuse(at, "must be a string", "invalid_type")
    if longest is not None and len(value) > longest:
        _refuse(at, f"has {len(value)} characters; {longest} at most")
    return value


def _refuse(at: str, why: str, code: str = "invalid_value") -> NoReturn:
    raise InvalidRequest(f"{at}: {why}", param=at, code=code)


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last message of role ``user``, or of the last message if there is none."""
    return text_of(
        next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1]).get("content")
    )
