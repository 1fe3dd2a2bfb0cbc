"""The members of a body that reach vLLM: those that a model set or a client may use, by one list.

vLLM's request has members besides that replace or show the prompt, or bring a Jinja template. A gateway
checks what a client may send; this list holds for all callers. Members that change the length of a prompt are
in it, since prompts are counted by the same request that is generated from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from runtime.core.requests.chat_body import LONGEST_VARIABLE
from runtime.core.requests.sampling import SetMembers
from runtime.core.walk.chain import OF_THE_RENDERER

MEMBERS = frozenset(SetMembers.__annotations__) | {"messages", "stream"}
"""Members of a body that become members of vLLM's request."""


def admitted(body: Mapping[str, Any], variables: Collection[str]) -> dict[str, Any]:
    """Return the members of ``body`` that vLLM is given. None stands for a missing value.

    ``variables`` are the names that the model's own chat template reads.
    """
    members = {name: value for name, value in body.items() if name in MEMBERS and value is not None}
    given = members.pop("chat_template_kwargs", None)
    if isinstance(given, Mapping):
        members["chat_template_kwargs"] = template_variables(given, variables)
    return members


def template_variables(given: Mapping[str, Any], variables: Collection[str]) -> dict[str, Any]:
    """Return those of ``given`` that are the template's own variables, and plain values."""
    own = set(variables) - OF_THE_RENDERER
    return {name: value for name, value in given.items() if name in own and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_VARIABLE
    return isinstance(value, bool | int | float)
