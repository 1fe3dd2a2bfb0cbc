"""Reading a chat completion request: bounded, validated where the chain depends on it, else passed on.

Only what Interlock itself reads is checked here. Everything else goes to the engine of the last
step, which knows its own parameters, and its refusal comes back with the field's name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.core.keys import Caller
from runtime.errors import InvalidRequest
from runtime.traffic.chain import ChatRequest


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_usage: bool = False


_MOST_TOKENS = 2**24
"""What no model generates in one answer: a number without end would overflow what budgets count in."""


class _ChatBody(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None


def read_chat_request(raw: bytes, request_id: str, caller: Caller, session: str = "") -> ChatRequest:
    """Return the request of ``caller`` in ``raw`` (a JSON body), a turn of ``session`` if that is one.

    Raises:
        InvalidRequest: not JSON, or a field of the wrong type or out of range; names the field.

    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    try:
        checked = _ChatBody.model_validate(body)
    except ValidationError as error:
        raise _named(error) from error
    if checked.stream_options is not None and not checked.stream:
        raise InvalidRequest("stream_options is only allowed when stream is true", param="stream_options")
    stream = bool(checked.stream)
    return ChatRequest(request_id, checked.model, body["messages"], body, stream, caller, session)


def wants_usage(request: ChatRequest) -> bool:
    """Say whether the client asked for a usage chunk at the end of its stream."""
    options = request.body.get("stream_options") or {}
    return bool(options.get("include_usage"))


def _named(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    return InvalidRequest(f"{param}: {first['msg']}", param=param)
