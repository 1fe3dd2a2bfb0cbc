"""Errors as OpenAI clients expect them: a status, a body with ``error``, and when to retry."""

from __future__ import annotations

import math
from typing import Any

from runtime import errors

_STATUS: tuple[tuple[type[errors.InterlockError], int, str], ...] = (
    (errors.UnknownModel, 404, "invalid_request_error"),
    (errors.RequestTooLarge, 413, "invalid_request_error"),
    (errors.RequestIncomplete, 408, "invalid_request_error"),
    (errors.UnsupportedMedia, 415, "invalid_request_error"),
    (errors.UnknownBudget, 404, "invalid_request_error"),
    (errors.UnknownKey, 404, "invalid_request_error"),
    (errors.Unauthenticated, 401, "authentication_error"),
    (errors.QuotaExhausted, 429, "insufficient_quota"),
    (errors.AccessDenied, 403, "permission_error"),
    (errors.RequestError, 400, "invalid_request_error"),
    (errors.UnknownRelease, 404, "invalid_request_error"),
    (errors.EtagMissing, 428, "invalid_request_error"),
    (errors.StaleEtag, 412, "conflict_error"),
    (errors.CommandRefused, 409, "conflict_error"),
    (errors.ModelSetError, 422, "invalid_request_error"),
    (errors.DeadlineExceeded, 504, "timeout_error"),
    (errors.RateLimited, 429, "rate_limit_error"),
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
    fields = error_object(str(error), kind)
    match error:
        case errors.RequestError():
            fields |= {"param": error.param, "code": error.code}
        case errors.RateLimited():
            fields |= {"code": "rate_limit_exceeded"}
        case errors.CommandRefused():
            fields |= {"code": error.code, "state": error.state}
        case errors.ModelSetError():
            fields |= {"param": error.key or None, "code": "invalid_model_set", "nearest": error.nearest}
    return {"error": fields}


def error_object(message: str, kind: str) -> dict[str, Any]:
    """Return what OpenAI's clients read of an error; ``kind`` is its ``type``."""
    return {"message": message, "type": kind, "param": None, "code": None}


def headers_of(error: errors.InterlockError) -> dict[str, str]:
    """Return ``retry-after`` (whole seconds) where a retry can help, or how to authenticate."""
    if isinstance(error, errors.Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, errors.QuotaExhausted):
        return {"x-should-retry": "false"}
    if isinstance(error, errors.RateLimited):
        return {
            "retry-after": str(math.ceil(error.retry_after)),
            "retry-after-ms": str(math.ceil(error.retry_after * 1000)),
        }
    if isinstance(error, errors.Unavailable):
        return {"retry-after": str(math.ceil(error.retry_after))}
    return {}
