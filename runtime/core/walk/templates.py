"""Prompts: Jinja2 templates in a sandbox, checked when the model set is parsed.

A template sees ``input`` (the last user message's text), ``messages`` (the conversation) and
``steps`` (what earlier steps of the chain gave: ``steps.triage.choice``, ``steps.draft.text``).
Anything else is refused at parse time, so that no request can find out later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes

from runtime.core.declaration.nearest import nearest
from runtime.core.walk.sandbox.environment import SANDBOX, environment_of
from runtime.core.walk.sandbox.meter import variables_of

VARIABLES = frozenset({"input", "messages", "steps"})

MAX_TOKENS = 5_000
"""Of Jinja's, in one prompt."""

_OF_MAPPINGS = frozenset({"get", "items", "keys", "values"})

_KEPT = 64
"""How many prompts stay compiled: more than two releases have. Swaps bring new ones for ever."""


@dataclass(frozen=True)
class TemplateFault:
    """Why a template cannot be used, and on which of its lines (1-based; 0 if unknown)."""

    line: int
    reason: str


@lru_cache(maxsize=_KEPT)
def check(text: str, earlier_steps: frozenset[str]) -> TemplateFault | None:
    """Return what is wrong with a prompt that follows ``earlier_steps``, or None.

    The prompt may refer to the three variables of this module and to earlier steps by name.
    """
    try:
        tree = SANDBOX.parse(text)
        # This compiles the tree, and so finds filters and tests that do not exist.
        unknown = sorted(meta.find_undeclared_variables(tree) - VARIABLES)
    except TemplateSyntaxError as error:
        return TemplateFault(error.lineno, error.message or "syntax error")
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        return TemplateFault(0, f"it cannot be compiled: {type(error).__name__}: {error}")
    if unknown:
        return TemplateFault(
            0, f"unknown variable {unknown[0]!r}; a prompt sees {', '.join(sorted(VARIABLES))}"
        )
    for other in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        return TemplateFault(other.lineno, "a prompt cannot include, extend or import another")
    for line, step in _steps_read(tree):
        if step not in earlier_steps:
            return TemplateFault(line, f"{step!r} is not an earlier step of this chain")
    return None


def _steps_read(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each step that the template reads: ``steps.x`` or ``steps["x"]``."""
    for read in tree.find_all(nodes.Getattr):
        if _is_steps(read.node):
            yield read.lineno, read.attr
    for item in tree.find_all(nodes.Getitem):
        if _is_steps(item.node) and isinstance(item.arg, nodes.Const):
            yield item.lineno, str(item.arg.value)


def _is_steps(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "steps"


def too_long(text: str) -> TemplateFault | None:
    """Return that a prompt holds more of Jinja's language than can be compiled in no time, or None.

    Text between tags does not count.
    """
    try:
        for count, (line, _, _) in enumerate(SANDBOX.lex(text)):
            if count > MAX_TOKENS:
                return TemplateFault(line, f"over {MAX_TOKENS} names, numbers and signs between its braces")
    except TemplateSyntaxError as error:
        return TemplateFault(error.lineno, error.message or "syntax error")
    return None


def misread(text: str, given: Mapping[str, frozenset[str]]) -> tuple[TemplateFault, str | None] | None:
    """Return what a prompt reads of an earlier step that the step does not give, and what it may mean.

    ``given`` has the names of what each earlier step gives.
    """
    tree = SANDBOX.parse(text)
    reads: list[nodes.Getattr | nodes.Getitem] = [
        *tree.find_all(nodes.Getattr),
        *tree.find_all(nodes.Getitem),
    ]
    for read in reads:
        of = read.node
        if not isinstance(of, nodes.Getattr | nodes.Getitem) or not _is_steps(of.node):
            continue
        gives, part = given.get(_name(of) or ""), _name(read)
        if gives is not None and part is not None and part not in gives | _OF_MAPPINGS:
            reason = f"step {_name(of)!r} gives {' and '.join(sorted(gives))}, not {part!r}"
            return TemplateFault(read.lineno, reason), nearest(part, gives)
    return None


def _name(read: nodes.Node) -> str | None:
    """Return what is read by name: ``x.name`` or ``x["name"]``."""
    if isinstance(read, nodes.Getattr):
        return read.attr
    arg = read.arg if isinstance(read, nodes.Getitem) else None
    return arg.value if isinstance(arg, nodes.Const) and isinstance(arg.value, str) else None


def reads_of(text: str) -> frozenset[str] | None:
    """Return which steps' results a prompt reads; None if it reads ``steps`` as a whole."""
    tree = SANDBOX.parse(text)
    named = [step for _, step in _steps_read(tree)]
    mentioned = sum(_is_steps(node) for node in tree.find_all(nodes.Name))
    return frozenset(named) if len(named) == mentioned else None


@lru_cache(maxsize=_KEPT)
def _compiled(text: str) -> tuple[Template, bool]:
    """Return the template, and whether it has to be counted while it is rendered."""
    environment = environment_of(SANDBOX.parse(text))
    return environment.from_string(text), environment is SANDBOX


def render(text: str, variables: Mapping[str, Any]) -> str:
    """Render a checked prompt.

    Raises:
        TemplateError: the template failed on these values (an undefined key, a sum of text and number), or
            would have done more than a prompt needs (``core.walk.sandbox``).

    """
    try:
        template, counted = _compiled(text)
        return template.render(variables_of(variables) if counted else variables).strip()
    except TemplateError:
        raise
    except Exception as error:  # an expression of the template may fail by anything
        raise TemplateError(f"{type(error).__name__}: {error}") from error


__all__ = [
    "VARIABLES",
    "TemplateError",
    "TemplateFault",
    "check",
    "misread",
    "reads_of",
    "render",
    "too_long",
]
