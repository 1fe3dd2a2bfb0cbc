"""Errors between a gateway and a replica. They cross as values.

As an exception one would be wrapped by Ray, and logged by Serve with a stack for every client that sends a
wrong field.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from runtime.errors import (
    DeadlineExceeded,
    EngineLost,
    EngineUnavailable,
    InterlockError,
    InvalidRequest,
    WarmupError,
)


class Fault(NamedTuple):
    """An error on the wire."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None


_KINDS = {
    kind.__name__: kind
    for kind in (DeadlineExceeded, EngineLost, EngineUnavailable, InvalidRequest, WarmupError)
}


def fault_of(error: InterlockError) -> Fault:
    """Return what crosses the wire for ``error``."""
    if isinstance(error, InvalidRequest):
        return Fault("InvalidRequest", str(error), error.param, error.code)
    known = type(error).__name__ in _KINDS
    return Fault(type(error).__name__ if known else "EngineUnavailable", str(error))


def raise_fault(fault: Fault) -> NoReturn:
    """Raise the error that ``fault`` was made of."""
    if fault.kind == "InvalidRequest":
        raise InvalidRequest(fault.message, param=fault.param, code=fault.code)
    raise _KINDS[fault.kind](fault.message)
