"""What tokens cost by the prices of a model set: whole numbers, never floats, so that sums are exact.

A set declares prices in the usual form, in units of a currency per million tokens; which currency is
its own affair. A token's price is kept in pico-units, a cost in nano-units: the cost of a hop is rounded
up to one, and everything after that is addition.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from runtime.core.metering.usage import Usage

_NANO = 10**9
_PICO_PER_TOKEN = 10**6
"""A unit per million tokens is a millionth of a unit per token: a million pico-units."""

PICO_PER_NANO = 1000
_MOST = Decimal(10**6)
"""Per million tokens. More would not fit into the store's numbers, times the tokens of a long context."""


class Price(NamedTuple):
    """What one token costs, in pico-units of the currency."""

    prompt: int = 0
    cached: int = 0
    """A token of the prompt that came from the prefix cache."""
    completion: int = 0


FREE = Price()
"""What the tokens of an engine without a price cost."""


def cost_of(price: Price, usage: Usage) -> int:
    """Return what a hop has cost, in nano-units."""
    fresh = usage.prompt - usage.cached
    pico = price.prompt * fresh + price.cached * usage.cached + price.completion * usage.completion
    return _rounded_up(pico)


def worst_cost(price: Price, prompt: int, completion: int) -> int:
    """Return what a hop of so many tokens may cost at most, in nano-units: nobody knows what is cached."""
    return _rounded_up(max(price.prompt, price.cached) * prompt + price.completion * completion)


def _rounded_up(pico: int) -> int:
    return -(-pico // PICO_PER_NANO)


def parse_money(value: Any) -> int:
    """Return an amount of money (a number, or text such as ``"25.50"``) in nano-units.

    Raises:
        ValueError: it is none, is negative, or has more than nine decimals.

    """
    nano = _decimal(value) * _NANO
    if nano != nano.to_integral_value():
        raise ValueError(f"{value!r} has more than nine decimals")
    return int(nano)


def money_text(nano: int) -> str:
    """Return the text that ``parse_money`` reads back to exactly ``nano`` nano-units."""
    return _plain(nano, 9)


def parse_price(value: Any) -> int:
    """Return ``value`` (units of the currency per million tokens) in pico-units per token.

    Raises:
        PydanticCustomError: it is no number, is negative or over a million, or has more than six decimals.

    """
    try:
        price = _decimal(value)
    except ValueError:
        price = Decimal(-1)
    pico = price * _PICO_PER_TOKEN
    if not 0 <= price <= _MOST or pico != pico.to_integral_value():
        raise PydanticCustomError(
            "price",
            "{value} is not a price; write currency units per million tokens, with at most six decimals",
            {"value": repr(value)},
        )
    return int(pico)


def price_text(pico: int) -> str:
    """Return the text that ``parse_price`` reads back to exactly ``pico`` pico-units per token."""
    return _plain(pico, 6)


TokenPrice = Annotated[
    int,
    BeforeValidator(parse_price),
    PlainSerializer(price_text, return_type=str),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
"""What a token costs: written per million tokens, kept in pico-units per token."""


def _plain(number: int, decimals: int) -> str:
    """Return ``number`` in units that have so many decimals, without those that say nothing."""
    return f"{Decimal(number).scaleb(-decimals):.{decimals}f}".rstrip("0").rstrip(".")


def _decimal(value: Any) -> Decimal:
    """Return a number as it was written: the shortest text of a float is what somebody has typed."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")  # noqa: TRY004 - whoever wrote it, the value is wrong
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is no number") from error
    if not number.is_finite() or number < 0 or number > _NANO * _NANO:
        raise ValueError(f"{value!r} is no amount")
    return number
