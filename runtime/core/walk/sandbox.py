"""A sandbox for templates in which a rendering ends: Jinja2's, with every operation counted.

Jinja2's sandbox keeps a template from what it may not touch; it lets it loop, multiply and pad as much as
it likes, and a prompt is rendered on the loop that serves everybody. Here each iteration, call, filter and
operation is a step, and each character that one reads or makes is counted, before it is made where its
arguments tell. A template in which nothing can repeat or grow is compiled without any of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import BuiltinMethodType
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

MAX_STEPS = 20_000
"""Iterations, calls, filters and operations of one rendering."""

MAX_CHARACTERS = 16 * 2**20
"""What they may read and make together."""

_ITEM = 64
"""As many characters an item of a list or a mapping counts, beside its own."""

_MAX_ARGUMENT = 100_000
"""A number that says how wide, how often or how many."""

_MAX_BITS = 1024
"""Of a whole number."""

_METER = " meter"
"""No template can say this name."""

_SHORT = 256
"""Text of a template so long is counted with the step that it stands in."""

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

_SCALARS = {int, float, bool, type(None)}


class TooMuch(TemplateRuntimeError):
    """A rendering that does more than a prompt needs."""


class _Meter:
    """What one rendering may still do."""

    __slots__ = ("characters", "steps")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.characters = MAX_CHARACTERS

    def step(self) -> None:
        """Count an operation."""
        self.steps -= 1
        if self.steps < 0:
            raise TooMuch(f"it takes more than {MAX_STEPS} steps")

    def take(self, characters: int) -> None:
        """Count characters that are about to be read or made."""
        self.characters -= characters
        if self.characters < 0:
            raise TooMuch(f"it works on more than {MAX_CHARACTERS} characters")

    def weigh(self, value: Any, times: int = 1) -> Any:
        """Count what ``value`` holds to its last character, and return it."""
        if isinstance(value, str):
            self.take(len(value) * times)
        elif isinstance(value, dict | list | tuple | Mapping):
            self.take(len(value) * _ITEM * times)
            for item in value.items() if isinstance(value, Mapping) else value:
                if not isinstance(item, int | float):
                    self.weigh(item, times)
        return value

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``items``, each as a step."""
        for item in items:
            self.steps -= 1
            if self.steps < 0:
                self.step()
            yield item

    def sized(self, value: Any) -> Any:
        """Count what ``value`` holds, not looking into its items, and return it."""
        if isinstance(value, str):
            self.take(len(value))
        elif isinstance(value, Sized) and not isinstance(value, Undefined):
            self.take(len(value) * _ITEM)
        return value


def _meter(context: Context) -> _Meter:
    meter: _Meter = context.parent[_METER]
    return meter


def variables_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of one rendering, and what counts it."""
    return {**variables, _METER: _Meter()}


# -- filters and tests ------------------------------------------------------------------------------


def _check_numbers(arguments: Iterable[Any]) -> None:
    for argument in arguments:
        if isinstance(argument, int | float) and abs(argument) > _MAX_ARGUMENT:
            raise TooMuch(f"{argument:.0f} is more than the {_MAX_ARGUMENT} that a width or a number may be")


def _check_format(text: Any) -> None:
    if isinstance(text, str) and _WIDE.search(text):
        raise TooMuch("the format has a width over 9999, or one that it does not say itself")


def _foresee(meter: _Meter, name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Count what a filter or a method is told, and what it will make of that; return what it is given."""
    given = [*args, *kwargs.values()]
    _check_numbers(given)
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
            _check_format(value)
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
        meter: _Meter = context.parent[_METER]
        meter.step()
        kind = type(value)
        if kind is str:
            meter.take(len(value) * times)
        elif kind not in _SCALARS:
            if isinstance(value, Iterator):
                value = meter.counted(value) if shallow else list(meter.counted(value))
            meter.sized(value) if shallow else meter.weigh(value, times)
        if args or kwargs or foreseen:
            value = _foresee(meter, name, value, args, kwargs)
        if passed:
            args = (value, *args)
            value = {
                "context": context,
                "eval_context": context.eval_ctx,
                "environment": context.environment,
            }[passed]
        made = function(value, *args, **kwargs)
        return made if type(made) in _SCALARS else meter.sized(made)

    return bounded


def _bounded_test(function: Any) -> Callable[..., Any]:
    passed = str(getattr(function, "jinja_pass_arg", "")).rpartition(".")[2]

    @pass_context
    def bounded(context: Context, value: Any, *args: Any) -> Any:
        meter = _meter(context)
        meter.step()
        meter.weigh(args)
        return function(*([context.environment] if passed == "environment" else []), value, *args)

    return bounded


@pass_context
def _counted(context: Context, items: Any) -> Any:
    return _meter(context).counted(items)


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    meter = _meter(context)
    meter.step()
    return meter.weigh(value)


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    meter = _meter(context)
    meter.step()
    return "".join([str(meter.weigh(part)) for part in parts])


@pass_context
def _shown(context: Context, value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    meter: _Meter = context.parent[_METER]
    if kind is str:
        meter.take(len(value))
        return value
    return meter.weigh(value)


# -- the environments -----------------------------------------------------------------------------


class _Counting(NodeTransformer):
    """Puts what counts into a template: around what is iterated, joined, compared, cut out or repeated."""

    def __init__(self) -> None:
        self._repeated = 0

    def _filtered(self, node: nodes.Node, name: str) -> nodes.Expr:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def _within(self, node: nodes.Node) -> nodes.Node:
        self._repeated += 1
        self.generic_visit(node)
        self._repeated -= 1
        return node

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = visit_Block = _within  # noqa: N815

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja2's way
        """Count iterations."""
        self._within(node)
        node.iter = self._filtered(node.iter, ".counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Count what ``~`` joins."""
        self.generic_visit(node)
        return self._filtered(nodes.List(node.nodes, lineno=node.lineno), ".joined")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Count what is compared."""
        self.generic_visit(node)
        for operand in node.ops:
            operand.expr = self._filtered(operand.expr, ".weighed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Count what is cut out."""
        self.generic_visit(node)
        return self._filtered(node, ".sized") if isinstance(node.arg, nodes.Slice) else node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        """Count long text that stands where it may be repeated."""
        long = self._repeated and len(node.data) > _SHORT
        return nodes.Const(node.data, lineno=node.lineno) if long else node


class _Sandbox(ImmutableSandboxedEnvironment):
    """Renders what can repeat or grow."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        # Not optimized: constants would be worked out while the template is compiled, which nobody counts.
        super().__init__(**options, optimized=False, finalize=_shown)
        self.filters = {name: _bounded(name, function) for name, function in FILTERS.items()}
        self.filters |= {".counted": _counted, ".weighed": _weighed, ".joined": _joined}
        self.filters[".sized"] = pass_context(lambda context, value: _meter(context).sized(value))
        compare = {
            "in",
            "eq",
            "==",
            "equalto",
            "ne",
            "!=",
            "lt",
            "<",
            "lessthan",
            "le",
            "<=",
            "gt",
            ">",
            "ge",
            ">=",
        }
        compare |= {"greaterthan", "upper", "lower", "divisibleby"}
        self.tests = {n: _bounded_test(f) if n in compare else f for n, f in TESTS.items()}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **kwargs)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count a call, and let none make more than is left."""
        meter = _meter(context)
        meter.step()
        if args or kwargs:
            meter.take((len(args) + len(kwargs)) * _ITEM)
            _check_numbers((*args, *kwargs.values()))
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
        meter: _Meter, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
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
            _foresee(meter, name, owner, args, kwargs)
        return args

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse a format that says how wide without saying it itself, or too wide."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Count an operation, and let none make more than is left."""
        meter = _meter(context)
        meter.step()
        if type(left) in _SCALARS and type(right) in _SCALARS and operator in "+%":
            pass
        elif isinstance(left, int) and isinstance(right, int):
            _check_size(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            meter.weigh((left, right))
        elif operator == "*":
            repeated, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(repeated, str | list | tuple) and isinstance(times, int):
                meter.take(len(repeated) * max(0, times) * (1 if isinstance(repeated, str) else _ITEM))
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


__all__ = ["MAX_CHARACTERS", "MAX_STEPS", "SANDBOX", "TooMuch", "environment_of", "variables_of"]
