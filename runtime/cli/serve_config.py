"""Reading a Serve config file, as far as the command line needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.core.declaration.document import Document, Key
from runtime.core.model_set.digest import change_digest
from runtime.errors import CommandError, ModelSetError
from runtime.sets.reader import read_document

CONFIG_KEY = "applications"
"""A key that a Serve config has and a model set has not."""

_DEPLOYMENT = "SwapManager"


def change_of(config: Path) -> str:
    """Return the digest of the change that ``config`` asks for, as the status shows it in ``wanted``.

    Raises:
        CommandError: not readable, or no deployment SwapManager with a user_config in it.
        ModelSetError: a key in it is written twice, of which Serve would silently take the last.

    """
    document = read_document(config, str(config))
    if document.problems:
        raise document.refusal(document.problems)
    return change_digest(_user_config(document)[1])


def model_set_in(document: Document) -> str | Document:
    """Return the path of the model set that a Serve config names, or the document of the one that it holds.

    Raises:
        CommandError: no deployment SwapManager with a user_config in it.
        ModelSetError: its user_config names no model set.

    """
    key, user_config = _user_config(document)
    wanted = user_config.get("model_set")
    if isinstance(wanted, str):
        return wanted
    if wanted is None:
        raise ModelSetError(document.source, "user_config.model_set", "is missing")
    below = (*key, "model_set")
    places = {
        path[len(below) :]: place for path, place in document.places.items() if path[: len(below)] == below
    }
    return Document(document.source, wanted, places)


def _user_config(document: Document) -> tuple[Key, Mapping[str, Any]]:
    for number, application in _items(document.value, CONFIG_KEY):
        for position, deployment in _items(application, "deployments"):
            user_config = deployment.get("user_config")
            if deployment.get("name") == _DEPLOYMENT and isinstance(user_config, Mapping) and user_config:
                return (CONFIG_KEY, number, "deployments", position, "user_config"), user_config
    raise CommandError(f"{document.source} is no Serve config with a user_config for {_DEPLOYMENT}")


def _items(node: Any, name: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the mappings in the list that a mapping has under ``name``, with their positions."""
    found = node.get(name) if isinstance(node, Mapping) else None
    items = found if isinstance(found, list) else []
    return [(position, item) for position, item in enumerate(items) if isinstance(item, Mapping)]
