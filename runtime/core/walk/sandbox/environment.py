"""The environments: one that counts, and one for templates in which nothing can repeat or grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.core.walk.sandbox.counting import COUNTING_FILTERS, Counting, shown
from runtime.core.walk.sandbox.filters import (
    BOUNDED_FILTERS,
    BOUNDED_TESTS,
    check_format,
    check_numbers,
    foresee,
)
from runtime.core.walk.sandbox.meter import ITEM, SCALARS, RenderMeter, TooMuch, meter_of

_MAX_BITS = 1024
"""Of a whole number."""

_TEXT_METHODS = (
    "capitalize casefold center count encode endswith expandtabs find format format_map index isalnum "
    "isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper "
    "join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
)

_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
}
"""What a template may call of what it has. The rest can grow without a limit, or has no use."""


_BUILT_IN = (*_METHODS, bytes, int, float)
"""Of these no other method is called."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Renders what can repeat or grow."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        # Not optimized: constants would be worked out while the template is compiled, which nobody counts.
        super().__init__(**options, optimized=False, finalize=shown)
        self.filters = {**BOUNDED_FILTERS, **COUNTING_FILTERS}
        self.tests = dict(BOUNDED_TESTS)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(Counting().visit(source), *args, **kwargs)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count a call, and let none make more than is left."""
        meter = meter_of(context)
        meter.step()
        if args or kwargs:
            meter.take((len(args) + len(kwargs)) * ITEM)
            check_numbers((*args, *kwargs.values()))
        owner = getattr(obj, "__self__", None)
        if obj is DEFAULT_NAMESPACE["lipsum"]:
            raise TooMuch("lipsum is not for prompts")
        if isinstance(obj, LoopContext):
            args = (meter.counted(args[0]), *args[1:])
        elif isinstance(obj, BuiltinMethodType) or isinstance(owner, _BUILT_IN):
            args = self._of_builtin(meter, owner, obj.__name__, args, kwargs)
        elif not isinstance(obj, Macro | BlockReference):
            args = tuple(list(meter.counted(a)) if isinstance(a, Iterator) else a for a in args)
            meter.weigh((args, tuple(kwargs.values())))
        return meter.sized(super().call(context, obj, *args, **kwargs))

    @staticmethod
    def _of_builtin(
        meter: RenderMeter, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """Count what a method of a built-in type reads and makes; return its arguments."""
        allowed = next((names for kind, names in _METHODS.items() if isinstance(owner, kind)), frozenset())
        if name not in allowed:
            raise TooMuch(f"{name} of {type(owner).__name__} is not for prompts")
        if name not in {"get", "items", "keys", "values", "startswith", "endswith"}:
            meter.sized(owner)
        if name == "join":
            items = list(meter.counted(args[0]))
            meter.weigh(items)
            meter.take(len(items) * len(owner))
            return (items, *args[1:])
        if args or kwargs or name == "expandtabs":
            foresee(meter, name, owner, args, kwargs)
        return args

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse a format whose width is not written in it, or is too large."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            check_format(value.__self__)
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Count an operation, and let none make more than is left."""
        meter = meter_of(context)
        meter.step()
        if type(left) in SCALARS and type(right) in SCALARS and operator in "+%":
            pass
        elif isinstance(left, int) and isinstance(right, int):
            _check_size(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            check_format(left)
            meter.weigh((left, right))
        elif operator == "*":
            repeated, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(repeated, str | list | tuple) and isinstance(times, int):
                meter.take(len(repeated) * max(0, times) * (1 if isinstance(repeated, str) else ITEM))
        elif operator == "+":
            meter.sized(left)
            meter.sized(right)
        return super().call_binop(context, operator, left, right)


def _check_size(operator: str, left: int, right: int) -> None:
    """Refuse whole numbers that no prompt needs."""
    bits = (
        left.bit_length() * max(1, abs(right)) if operator == "**" else left.bit_length() + right.bit_length()
    )
    if operator in {"*", "**"} and bits > _MAX_BITS:
        raise TooMuch(f"a number of more than {_MAX_BITS} bits")


_OPTIONS: Mapping[str, Any] = {
    "undefined": StrictUndefined,
    "autoescape": False,
    "trim_blocks": True,
    "lstrip_blocks": True,
}

SANDBOX = _Sandbox(**_OPTIONS)
"""For templates that may repeat or grow."""

_QUICK = ImmutableSandboxedEnvironment(**_OPTIONS)
"""For templates that show values and choose between texts, once each."""

_PLAIN = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const,
    nodes.If, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr,
)  # fmt: skip
_MAX_PLAIN = 64
"""Values that a template shows or compares: each may be as long as a request."""


def environment_of(tree: nodes.Template) -> ImmutableSandboxedEnvironment:
    """Return the environment to render the template in: as it comes, if nothing in it can repeat or grow."""
    looked_at = 0
    queue: list[nodes.Node] = [tree]
    while queue:
        node = queue.pop()
        if type(node) not in _PLAIN:
            return SANDBOX
        looked_at += isinstance(node, nodes.Name)
        if looked_at > _MAX_PLAIN:
            return SANDBOX
        queue.extend(node.iter_child_nodes())
    return _QUICK
