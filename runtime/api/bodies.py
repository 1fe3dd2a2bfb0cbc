"""Reading a request's body: bounded in size, in numbers and in nesting, and each name once."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from runtime.core.declaration.nearest import nearest
from runtime.core.requests.json_body import read_object, shown
from runtime.errors import InvalidRequest, RequestIncomplete, RequestTooLarge

ADMIN_BYTES = 64 * 1024
"""The largest body of an admin call, except of one that holds a whole model set."""

PATIENCE_S = 60.0
"""How long a client may take to send its body."""

_Model = TypeVar("_Model", bound="AdminBody")


class AdminBody(BaseModel):
    """The body of an admin call: known members alone, of the type that they say."""

    model_config = ConfigDict(extra="forbid", frozen=True)


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        RequestTooLarge: more than ``limit`` bytes are announced, or come.
        RequestIncomplete: it has not all come within ``PATIENCE_S``.

    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > len(str(limit)) or int(announced) > limit):
        raise RequestTooLarge(f"the body is over {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise RequestTooLarge(f"the body is over {limit} bytes")
    except TimeoutError as error:
        message = f"the body did not come within {PATIENCE_S:g} s; {len(body)} bytes of it did"
        raise RequestIncomplete(message, code="request_timeout") from error
    return bytes(body)


async def read_admin_body(request: Request, model: type[_Model], limit: int = ADMIN_BYTES) -> _Model:
    """Return the body of an admin call, a JSON object; an empty one counts as ``{}``.

    Raises:
        InvalidRequest: it is none, or a member of it is wrong; names the member.
        RequestTooLarge: it is over ``limit`` bytes.

    """
    body = read_object(await read_body(request, limit) or b"{}")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False)[0], model) from error


def refusal_of(error: ErrorDetails, model: type[BaseModel] | None = None) -> InvalidRequest:
    """Return a validation error of pydantic's in the API's words, with the member at fault as ``param``."""
    path = [shown(str(part)) for part in error["loc"] if part not in ("path", "query", "header")]
    param = ".".join(path)
    reason = str(error["msg"])
    match error["type"]:
        case "missing":
            reason = "is needed"
        case "extra_forbidden":
            near = (
                nearest(path[-1], list(model.model_fields)) if model is not None and len(path) == 1 else None
            )
            reason = "is no member of this body" + (f"; did you mean {near!r}?" if near else "")
        case "enum" | "literal_error":
            choices = str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ").replace("'", "")
            near = nearest(str(error["input"]), choices.split(", "))
            hint = f"; did you mean {near!r}?" if near else ""
            reason = f"is one of {choices}, not {shown(repr(error['input']))}{hint}"
        case _:
            reason = reason.removeprefix("Value error, ").replace("Input should", "should")
    return InvalidRequest(f"{param} {reason}", param=param)
