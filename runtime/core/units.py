"""Durations and sizes as people write them: ``20s``, ``10m``, ``1GiB``. A bare number is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")


def parse_duration(value: Any) -> float:
    """Return ``value`` (text such as ``"1.5s"`` or ``"10m"``) in seconds.

    Raises:
        PydanticCustomError: not a string, or no unit, or an unknown unit.

    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError(
            "duration",
            "{value} is not a duration; write a number with a unit: 500ms, 20s, 10m, 2h, 1d",
            {"value": repr(value)},
        )
    return float(match["number"]) * _SECONDS[match["unit"]]


def format_duration(seconds: float) -> str:
    """Return the text that ``parse_duration`` reads back to exactly ``seconds``."""
    return f"{seconds:.12f}".rstrip("0").rstrip(".") + "s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern}),
]
"""A span of time in seconds, written with its unit."""
