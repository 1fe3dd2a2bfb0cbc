"""What a client asks for, in whichever form of the API it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from runtime.core.metering.ledger import Purpose
from runtime.core.requests.messages import Message


class Ask(NamedTuple):
    """An answer of a chain to a conversation. Each form of the API is read into it once.

    Who routes, walks and charges goes by it alone. How the answer is written is not in it.
    """

    chain: str
    """By its name, which clients send as ``model``."""
    messages: Sequence[Message] = ()
    """The conversation in its normal form."""
    params: Mapping[str, Any] = MappingProxyType({})
    """What is said beside it to the engine of the step that answers. A cap has one name, ``max_tokens``."""
    stream: bool = False
    """Whether the answer is wanted in parts, as they come."""
    purpose: Purpose = Purpose.LIVE
