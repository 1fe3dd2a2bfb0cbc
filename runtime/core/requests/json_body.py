"""Reading JSON that anybody may have sent: what it may cost is known before it is parsed.

A parser makes an object of every value, and four megabytes of ``[],`` take it seconds. So the text is
measured first, by searches that the machine does at the speed of memory: how many values it has, how deep
they nest, how many keys there are. What is measured here holds of valid JSON; the parser refuses the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from runtime.errors import InvalidRequest

MOST_VALUES = 32_768
"""How many values a body may have, members of objects and of arrays together."""

MOST_DEPTH = 64
"""How deep objects and arrays may lie in each other."""

QUICK = 32_768
"""Bytes of a body that is read at once. What is longer takes milliseconds: read it in a thread."""

_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

_QUOTES = 2 * 2 * MOST_VALUES
"""Those around so many values with a name each."""


def read_object(raw: bytes, label: str = "the body") -> dict[str, Any]:
    """Return the JSON object in ``raw``, which errors call ``label``.

    Raises:
        InvalidRequest: it is none; it has a name twice in one object, more than ``MOST_VALUES`` values, or
            more than ``MOST_DEPTH`` levels; or a number in it is none that JSON has.

    """
    outside = _outside_of_strings(raw)
    if outside is None or _values(outside) > MOST_VALUES:
        raise _unreadable(f"{label} has more than {MOST_VALUES} values")
    if _too_deep(outside):
        raise _unreadable(f"{label} nests objects and arrays more than {MOST_DEPTH} deep")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _unreadable(f"{label} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise _unreadable(f"{label} must be a JSON object")
    if outside.count(b":") != _names(value):
        raise _unreadable(f"{label} has {_twice(raw)!r} twice in one object; which of the two counts?")
    return value


def nests_too_deep(text: str) -> bool:
    """Say whether a string that is JSON itself, which others will parse, has too many values or levels."""
    outside = _outside_of_strings(text.encode())
    return outside is None or _values(outside) > MOST_VALUES or _too_deep(outside)


def _outside_of_strings(raw: bytes) -> bytes | None:
    """Return what is left of JSON without its strings' insides; None if there are too many of them."""
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw
    parts = plain.split(b'"', _QUOTES)
    return None if len(parts) > _QUOTES else b"".join(parts[::2])


def _values(outside: bytes) -> int:
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{")


def _too_deep(outside: bytes) -> bool:
    if outside.count(b"[") + outside.count(b"{") <= MOST_DEPTH:
        return False
    depth = 0
    for byte in outside.translate(None, _NO_BRACKETS):
        if byte in b"[{":
            depth += 1
            if depth > MOST_DEPTH:
                return True
        else:
            depth -= 1
    return False


def _names(value: dict[str, Any]) -> int:
    """Return how many members all objects in ``value`` have together."""
    names = len(value)
    inside: list[Iterable[Any]] = [value.values()]
    for members in inside:  # which grows meanwhile
        for member in members:
            if type(member) is dict:
                names += len(member)
                inside.append(member.values())
            elif type(member) is list:
                inside.append(member)
    return names


def _twice(raw: bytes) -> str:
    """Return (the beginning of) a name that an object in ``raw`` has twice."""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                found.append(name)
            names.add(name)

    json.loads(raw, object_pairs_hook=note)
    return shown(found[0])


LONGEST_SHOWN = 64
"""Characters of what a client sent that an error repeats."""


def shown(text: str) -> str:
    """Return the beginning of a client's text, for an error."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _unreadable(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_json")
