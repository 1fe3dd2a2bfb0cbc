"""Durations and sizes as people write them: ``20s``, ``10m``, ``1GiB``. A bare number is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kMGT]?B|[KMGT]iB)", re.ASCII)
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)", re.ASCII)


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


def duration_text(seconds: float) -> str:
    """Return a span of time as people write it, in the largest unit of which it is a whole number."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s"


def span_text(seconds: float) -> str:
    """Return a span of time for people, in its two largest units: ``3 h 12 min``."""
    rounded = round(seconds)
    for size, unit, part, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if rounded >= size:
            rest = rounded % size // part
            return f"{rounded // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{rounded} s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern}),
]
"""A span of time in seconds, written with its unit."""


def parse_time_share(value: Any) -> float:
    """Return ``value`` in seconds: text as for ``parse_duration``, or a bare number of milliseconds.

    Raises:
        PydanticCustomError: neither.

    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000.0
    return parse_duration(value)


TimeShare = Annotated[
    float,
    BeforeValidator(parse_time_share),
    Field(gt=0.0, allow_inf_nan=False),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION.pattern}, {"type": "number"}]}),
]
"""A span of a request's time in seconds, written with its unit or as milliseconds."""


def parse_size(value: Any) -> int:
    """Return ``value`` (text such as ``"512MiB"`` or ``"1.5GB"``) in bytes.

    Raises:
        PydanticCustomError: not a string, or no unit, or an unknown unit.

    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError(
            "size",
            "{value} is not a size; write a number with a unit: 512MiB, 2GiB, 1.5GB",
            {"value": repr(value)},
        )
    return round(float(match["number"]) * _BYTES[match["unit"]])


def format_size(size: int) -> str:
    """Return the text that ``parse_size`` reads back to exactly ``size`` bytes."""
    return f"{size}B"


def size_text(size: int) -> str:
    """Return ``size`` bytes for people: in GiB."""
    return f"{size / _BYTES['GiB']:.1f} GiB"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _SIZE.pattern}),
]
"""An amount of memory in bytes, written with its unit."""
