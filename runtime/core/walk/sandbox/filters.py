"""Filters and tests that count before they do anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS

from runtime.core.walk.sandbox.meter import METER, SCALARS, RenderMeter, TooMuch, meter_of

_MAX_ARGUMENT = 100_000
"""The greatest width, repetition or count that an argument may be."""

_WIDE = re.compile(r"\d{5}|\*|:[^}]*\{")
"""A width of a format that is large, or that comes from elsewhere."""

_LASTING = {
    "wordwrap",
    "urlize",
    "striptags",
    "pprint",
    "title",
    "xmlattr",
    "urlencode",
    "tojson",
    "wordcount",
}
"""Filters that take their time over each character."""

_PER_ITEM = {
    "attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map", "random",
    "reject", "rejectattr", "reverse", "safe", "select", "selectattr", "slice",
}  # fmt: skip
"""Filters that look at items, and into none."""


def check_numbers(arguments: Iterable[Any]) -> None:
    """Refuse a number that no prompt needs."""
    for argument in arguments:
        if isinstance(argument, int | float) and abs(argument) > _MAX_ARGUMENT:
            raise TooMuch(f"{argument:.0f} is more than the {_MAX_ARGUMENT} that a width or a number may be")


def check_format(text: Any) -> None:
    """Refuse a format whose width is not written in it, or is too large."""
    if isinstance(text, str) and _WIDE.search(text):
        raise TooMuch("the format has a width over 9999, or one that it does not say itself")


def foresee(
    meter: RenderMeter, name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Count a filter's or method's arguments and what it will make of them; return the value it gets."""
    given = [*args, *kwargs.values()]
    check_numbers(given)
    meter.weigh(given)
    match name:
        case "join":
            value = list(value)
            meter.weigh(given, len(value))
        case "replace" if isinstance(value, str) and len(args) >= 2:  # noqa: PLR2004
            meter.take((value.count(str(args[0])) if args[0] else len(value) + 1) * len(str(args[1])))
        case "indent" | "expandtabs" | "wordwrap":
            wide = max((len(a) if isinstance(a, str) else int(a) for a in given if a), default=8)
            meter.take(len(re.findall(r"\s", str(value))) * min(wide, _MAX_ARGUMENT))
        case "striptags":  # it cuts each tag out of the whole text
            meter.take(str(value).count("<") * len(str(value)))
        case "format" | "format_map":
            check_format(value)
        case "tojson" | "round":
            if any(isinstance(number, int) and number > 64 for number in given):  # noqa: PLR2004
                raise TooMuch("more than 64 places are not needed")
        case "sum" if any(isinstance(start, list | tuple | str) for start in given):
            raise TooMuch("sum adds numbers")
    return value


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts before it does anything."""
    passed = str(getattr(function, "jinja_pass_arg", "")).rpartition(".")[2]
    times = 16 if name in _LASTING else 1
    shallow = name in _PER_ITEM
    foreseen = name in {"indent", "wordwrap", "striptags"}

    @pass_context
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter: RenderMeter = context.parent[METER]
        meter.step()
        kind = type(value)
        if kind is str:
            meter.take(len(value) * times)
        elif kind not in SCALARS:
            if isinstance(value, Iterator):
                value = meter.counted(value) if shallow else list(meter.counted(value))
            meter.sized(value) if shallow else meter.weigh(value, times)
        if args or kwargs or foreseen:
            value = foresee(meter, name, value, args, kwargs)
        if passed:
            args = (value, *args)
            value = {
                "context": context,
                "eval_context": context.eval_ctx,
                "environment": context.environment,
            }[passed]
        made = function(value, *args, **kwargs)
        return made if type(made) in SCALARS else meter.sized(made)

    return bounded


def _bounded_test(function: Any) -> Callable[..., Any]:
    passed = str(getattr(function, "jinja_pass_arg", "")).rpartition(".")[2]

    @pass_context
    def bounded(context: Context, value: Any, *args: Any) -> Any:
        meter = meter_of(context)
        meter.step()
        meter.weigh(args)
        return function(*([context.environment] if passed == "environment" else []), value, *args)

    return bounded


BOUNDED_FILTERS = {name: _bounded(name, function) for name, function in FILTERS.items()}

_COMPARING = {
    "in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "ge", ">=",
    "greaterthan", "upper", "lower", "divisibleby",
}  # fmt: skip
"""Tests that read what they are given to its end."""

BOUNDED_TESTS = {n: _bounded_test(f) if n in _COMPARING else f for n, f in TESTS.items()}
