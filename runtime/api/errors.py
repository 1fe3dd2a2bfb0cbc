"""Errors as OpenAI clients expect them: a status, a body with ``error``, and when to come again."""

from __future__ import annotations

import math
from typing import Any

from runtime import errors

_STATUS: tuple[tuple[type[errors.InterlockError], int, str], ...] = (
    (errors.UnknownModel, 404, "invalid_request_error"),
    (errors.RequestTooLarge, 413, "invalid_request_error"),
    (errors.AccessDenied, 403, "permission_error"),
    (errors.RequestError, 400, "invalid_request_error"),
    (errors.DeadlineExceeded, 504, "timeout_error"),
    (errors.Unavailable, 503, "service_unavailable_error"),
    (errors.InterlockError, 500, "server_error"),
)
"""First match wins, so the narrow come before the wide."""


def status_of(error: errors.InterlockError) -> int:
    """Return the HTTP status for ``error``."""
    return next(status for kind, status, _ in _STATUS if isinstance(error, kind))


def body_of(error: errors.InterlockError) -> dict[str, Any]:
    """Return OpenAI's error object for ``error``."""
    kind = next(name for known, _, name in _STATUS if isinstance(error, known))
    request = error if isinstance(error, errors.RequestError) else None
    return {
        "error": {
            "message": str(error),
            "type": kind,
            "param": request.param if request else None,
            "code": request.code if request else None,
        }
    }


def headers_of(error: errors.InterlockError) -> dict[str, str]:
    """Return ``retry-after`` (whole seconds) where coming again can help."""
    if isinstance(error, errors.Unavailable):
        return {"retry-after": str(math.ceil(error.retry_after))}
    return {}
