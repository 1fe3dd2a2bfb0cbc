"""The calls of gateways to the manager: their types on the wire, and how long an answer is waited for.

A call has at most one argument. Argument and answer are MessagePack of their declared types, so a value of
another type is refused where it arrives. Unknown members are ignored and missing ones have their defaults: so
the two versions of an update understand each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from pydantic import BaseModel

from runtime.control.hub import POLL_SECONDS
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.commands import Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import Form, Status
from runtime.errors import EngineUnavailable, InterlockError, InternalError

SILENT_S = 8.0
"""How long the manager, or a gateway, may be silent before the other connects anew, which costs little."""


def _plain(value: Any) -> Any:
    """Return what is sent for a form, plain JSON, or for a value of the model set's own types, its text."""
    if isinstance(value, Form):
        return value.as_json()
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    raise TypeError(f"{type(value).__name__} has no form on the wire")


def _typed(kind: type, value: Any) -> Any:
    if issubclass(kind, Form):
        return kind.model_validate(value)
    if issubclass(kind, BaseModel):
        return kind.model_validate_json(value)
    raise TypeError(f"{kind.__name__} has no form on the wire")


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""Raises one of ``wire.UNENCODABLE``."""


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_typed).decode


class Method:
    """One call: the types of its argument and of its answer, and for how many seconds that is waited for."""

    def __init__(self, argument: Any, answer: Any, seconds: float) -> None:
        self.decode_argument = _decoder(argument)
        self.decode_answer = _decoder(answer)
        self.seconds = seconds


_JSON = dict[str, Any]

METHODS = {
    "next_table": Method(GatewayReport, RoutingTable, POLL_SECONDS + 5.0),
    "report": Method(GatewayReport, TableStamp, 5.0),
    "activity": Method(GatewayActivity, None, 5.0),
    "leave": Method(str, None, 2.0),
    "count": Method(MetricsSnapshot, None, 10.0),
    "metrics": Method(MetricsSnapshot, bytes, 20.0),
    "status": Method(None, Status, 10.0),
    "health": Method(None, _JSON, 10.0),
    "command": Method(Command, Status, 30.0),
    "plan": Method(str | _JSON, _JSON, 600.0),  # a model's files are hashed for it, if they are new
    "changes": Method(int | None, ChangeBatch, POLL_SECONDS + 5.0),
    "audit": Method(int, list[_JSON], 30.0),
}
"""By the name of the manager's method."""


class ErrorReply(msgspec.Struct, array_like=True):
    """An error of Interlock's on the wire: the name of its class, and its arguments."""

    kind: str
    arguments: list[Any]
    attributes: dict[str, Any] = {}


def error_reply_of(error: InterlockError) -> ErrorReply:
    """Return ``error`` as it is sent."""
    _, arguments, *attributes = tuple[Any, ...](error.__reduce__())
    return ErrorReply(type(error).__name__, list(arguments), *map(dict, filter(None, attributes)))


def error_of(refusal: ErrorReply) -> InterlockError:
    """Return the error that ``refusal`` was made of; one that is not known here keeps its message."""
    kind = {kind.__name__: kind for kind in _kinds(InterlockError)}.get(refusal.kind)
    try:
        if kind is not None:
            error = kind(*refusal.arguments)
            error.__dict__.update(refusal.attributes)
            return error
    except TypeError:
        return InternalError(
            f"the manager refused with {refusal.kind}, whose arguments this version does not know"
        )
    message = str(refusal.arguments[0]) if refusal.arguments else refusal.kind
    return EngineUnavailable(f"the manager: {message}")


def _kinds(kind: type[InterlockError]) -> Iterator[type[InterlockError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


decode_error_reply = msgspec.msgpack.Decoder(ErrorReply).decode
