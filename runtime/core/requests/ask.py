"""A client's request, in whichever form of the API it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from runtime.core.metering.ledger import Purpose
from runtime.core.requests.messages import Message


class Ask(NamedTuple):
    """An answer of a chain to a conversation. Each form of the API is read into it once.

    Routing, walking and charging depend on it alone. It does not say how the answer is written.
    """

    chain: str
    """By its name, which clients send as ``model``."""
    messages: Sequence[Message] = ()
    """The conversation in its normal form."""
    params: Mapping[str, Any] = MappingProxyType({})
    """Parameters for the engine of the step that answers. A cap has one name, ``max_tokens``."""
    stream: bool = False
    """Whether the answer is wanted in parts, as they come."""
    purpose: Purpose = Purpose.LIVE
