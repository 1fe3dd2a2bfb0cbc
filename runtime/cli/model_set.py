"""A model set's file as one mapping, to send where its files are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runtime.errors import CommandError


def read_whole(path: Path) -> dict[str, Any]:
    """Return the model set at ``path`` with its prompt files' text in place of their names.

    Raises:
        CommandError: unreadable, or no mapping. What is wrong inside it, the server says.

    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise CommandError(f"{path}: a model set is a mapping with name, engines and chains")
        for generate in _generates(document):
            prompt = generate.get("prompt")
            if isinstance(prompt, str) and prompt.endswith(".j2"):
                generate["prompt"] = (path.parent / prompt).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error
    return document


def _generates(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the generate steps as far as the document has the form of a model set."""
    chains = document.get("chains")
    found = []
    for chain in chains.values() if isinstance(chains, Mapping) else ():
        steps = chain.get("steps") if isinstance(chain, Mapping) else None
        for step in steps if isinstance(steps, list) else ():
            generate = step.get("generate") if isinstance(step, Mapping) else None
            if isinstance(generate, dict):
                found.append(generate)
    return found
