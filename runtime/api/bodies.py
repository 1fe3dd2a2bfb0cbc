"""Reading a request's body, bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from runtime.errors import InvalidRequest, RequestTooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body. Raises RequestTooLarge as soon as more than ``limit`` bytes have come."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise RequestTooLarge(f"the body is over {limit} bytes")
    return bytes(body)


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """Return the body, a JSON object; an empty one counts as ``{}``.

    Raises:
        InvalidRequest: it is none.
        RequestTooLarge: it is over ``limit`` bytes.

    """
    raw = await read_body(request, limit)
    try:
        body = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def text_in(body: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    """Return the string that a body has as ``name``, or an empty one. Raises InvalidRequest."""
    text = body.get(name, "")
    if not isinstance(text, str) or (needed and not text):
        raise InvalidRequest(f"{name} must be a string" + (", and is needed" if needed else ""), param=name)
    return text
