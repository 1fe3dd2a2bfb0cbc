"""Prompts: Jinja2 templates in a sandbox, checked when the model set is parsed.

A template sees ``input`` (the last user message's text), ``messages`` (the conversation) and
``steps`` (what earlier steps of the chain gave: ``steps.triage.choice``, ``steps.draft.text``).
Anything else is refused at parse time, so that no request can find out later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = frozenset({"input", "messages", "steps"})

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class TemplateFault:
    """Why a template cannot be used, and on which of its lines (1-based; 0 if unknown)."""

    line: int
    reason: str


def check(text: str, earlier_steps: frozenset[str]) -> TemplateFault | None:
    """Return what is wrong with a prompt that follows ``earlier_steps``, or None.

    The prompt may refer to the three variables of this module and to earlier steps by name.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
    except TemplateSyntaxError as error:
        return TemplateFault(error.lineno, error.message or "syntax error")
    unknown = sorted(meta.find_undeclared_variables(tree) - VARIABLES)
    if unknown:
        return TemplateFault(
            0, f"unknown variable {unknown[0]!r}; a prompt sees {', '.join(sorted(VARIABLES))}"
        )
    for attribute in tree.find_all(nodes.Getattr):
        of_steps = isinstance(attribute.node, nodes.Name) and attribute.node.name == "steps"
        if of_steps and attribute.attr not in earlier_steps:
            return TemplateFault(attribute.lineno, f"{attribute.attr!r} is not an earlier step of this chain")
    return None


@lru_cache(maxsize=512)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


def render(text: str, variables: Mapping[str, Any]) -> str:
    """Render a checked prompt.

    Raises:
        TemplateError: the template failed on these values (an undefined key, a sandbox violation).

    """
    return _compiled(text).render(**variables).strip()


__all__ = ["VARIABLES", "TemplateError", "TemplateFault", "check", "render"]
