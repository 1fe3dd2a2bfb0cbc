"""Reading a request's body, bounded."""

from __future__ import annotations

from starlette.requests import Request

from runtime.errors import RequestTooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body. Raises RequestTooLarge as soon as more than ``limit`` bytes have come."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise RequestTooLarge(f"the body is over {limit} bytes")
    return bytes(body)
