"""A model set's file: checked where it is, and as one mapping, to send where its files are not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.exits import exit_codes
from runtime.cli.serve_config import CONFIG_KEY, model_set_in
from runtime.cli.tables import counted
from runtime.core.declaration.document import Document, dotted
from runtime.core.model_set.model_set import ModelSet
from runtime.errors import ModelSetError
from runtime.sets.reader import INLINE, find_weights, read_document, read_model_set
from runtime.sets.sources import expanded
from runtime.settings import Settings

_REFUSED = re.compile(rf"{re.escape(INLINE)}: (?P<key>[^:]+): ")
"""How a server names what is wrong in a model set that it got without its file."""

_INVALID = 2
"""Exit code of a check that has found something: 1 is one that could not be made."""


def validate(
    paths: Annotated[list[Path], typer.Argument(help="Model sets, or Serve configs that name or hold one.")],
) -> None:
    """Check model sets without a cluster: every mistake with its line. Exit 2 if there is one.

    Whether weights are there is a note, for only the cluster's nodes can tell: `interlock plan` asks them.
    """
    failed = False
    for path in paths:
        with exit_codes():
            try:
                typer.echo(f"{path}: {_checked(path)}")
            except ModelSetError as error:
                typer.echo(str(error), err=True)
                failed = True
    if failed:
        raise typer.Exit(_INVALID)


def _checked(path: Path) -> str:
    """Return what a valid file holds. Raises ModelSetError."""
    document, folder = model_set_at(path, Settings().root)
    model_set = read_model_set(document, folder)
    try:
        find_weights(model_set, document, folder, Settings().models_dir)
    except ModelSetError as error:
        typer.echo("\n".join(f"note: {line}" for line in str(error).splitlines()), err=True)
    engines, chains = counted(len(model_set.engines), "engine"), ", ".join(model_set.chains)
    return f"model set {model_set.name} is valid: {engines}, chains {chains}"


def model_set_at(path: Path, root: Path) -> tuple[Document, Path]:
    """Return the document of a model set, and the folder that its names start from.

    ``path`` is its file, or a Serve config that names or holds one. Raises ModelSetError.
    """
    document = read_document(path, str(path))
    if not isinstance(document.value, dict) or CONFIG_KEY not in document.value:
        return document, path.parent
    if document.problems:
        raise document.refusal(document.problems)
    wanted = model_set_in(document)
    if isinstance(wanted, Document):
        return wanted, root
    named = root / expanded(wanted, str(path))
    return read_document(named, str(named)), named.parent


def read_whole(path: Path) -> Document:
    """Return the document at ``path`` with its prompts' text in place of their files' names.

    Folders of weights beside it get their whole paths: the server would look for them elsewhere.

    Raises:
        ModelSetError: with all that is wrong in the file.

    """
    document, folder = model_set_at(path, Settings().root)
    model_set = read_model_set(document, folder)
    whole: dict[str, Any] = document.value
    for name, chain in model_set.chains.items():
        for position, step in enumerate(chain.steps):
            if step.kind.prompt is not None:
                whole["chains"][name]["steps"][position][step.kind.name]["prompt"] = step.kind.prompt
    _anchor_folders(whole, model_set, folder)
    return document


def told_of(document: Document, refusal: str) -> str:
    """Return a server's refusal of a document as one of its file, with lines: it got the content alone."""
    return "\n".join(_told_of(document, line) for line in refusal.splitlines())


def _told_of(document: Document, line: str) -> str:
    found = _REFUSED.match(line)
    number = _line_of(document, found["key"]) if found is not None else None
    return line.replace(INLINE, document.source if number is None else f"{document.source}:{number}", 1)


def _line_of(document: Document, told: str) -> int | None:
    """Return the line of a key as people write it, or of what is around it; None if nothing is."""
    around = {dotted(key): place.line for key, place in document.places.items() if key}
    known = [key for key in around if told == key or told.startswith((f"{key}.", f"{key}["))]
    return around[max(known, key=len)] if known else None


def _anchor_folders(whole: dict[str, Any], model_set: ModelSet, folder: Path) -> None:
    for name, engine in model_set.engines.items():
        beside = folder / expanded(engine.source or "", name)
        if engine.source and beside.is_dir():
            declared = whole["engines"][name]
            if "llm_config" in declared:
                declared["llm_config"]["model_loading_config"]["model_source"] = str(beside.resolve())
            else:
                declared["model"] = str(beside.resolve())
