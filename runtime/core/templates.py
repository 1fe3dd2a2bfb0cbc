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

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = frozenset({"input", "messages", "steps"})

_KEPT = 64
"""How many prompts stay compiled: more than two releases have. Swaps bring new ones for ever."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)


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
        tree = _ENVIRONMENT.parse(text)
        # This compiles the tree, and so finds filters and tests that do not exist.
        unknown = sorted(meta.find_undeclared_variables(tree) - VARIABLES)
    except TemplateSyntaxError as error:
        return TemplateFault(error.lineno, error.message or "syntax error")
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


@lru_cache(maxsize=_KEPT)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


def render(text: str, variables: Mapping[str, Any]) -> str:
    """Render a checked prompt.

    Raises:
        TemplateError: the template failed on these values (an undefined key, a sum of text and number).

    """
    try:
        return _compiled(text).render(**variables).strip()
    except TemplateError:
        raise
    except Exception as error:  # an expression of the template may fail by anything
        raise TemplateError(f"{type(error).__name__}: {error}") from error


__all__ = ["VARIABLES", "TemplateError", "TemplateFault", "check", "render"]
