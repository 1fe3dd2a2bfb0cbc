"""A model set's file: checked here, or read as one mapping, to be sent where its files are not."""

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
"""How a server names the key at fault in a model set that it got without its file."""

_INVALID = 2
"""Exit code of a check that has found mistakes; 1 means that it could not be made."""


def validate(
    paths: Annotated[list[Path], typer.Argument(help="Model sets, or Serve configs that name or hold one.")],
) -> None:
    """Check model sets without a cluster: every mistake with its line. Exit 2 if there is one.

    Whether weights are there is a note, for only the cluster's nodes know: `interlock plan` asks them.
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


def read_inlined(path: Path) -> Document:
    """Return the document at ``path``, with its prompts' text in place of their files' names.

    Folders of weights beside it get absolute paths: the server would look for them elsewhere.

    Raises:
        ModelSetError: with all that is wrong in the file.

    """
    document, folder = model_set_at(path, Settings().root)
    model_set = read_model_set(document, folder)
    content: dict[str, Any] = document.value
    for name, chain in model_set.chains.items():
        for position, step in enumerate(chain.steps):
            if step.kind.prompt is not None:
                content["chains"][name]["steps"][position][step.kind.name]["prompt"] = step.kind.prompt
    _anchor_folders(content, model_set, folder)
    return document


def located(document: Document, refusal: str) -> str:
    """Return a server's refusal with the file and its lines put in: the server got the content alone."""
    return "\n".join(_located_line(document, line) for line in refusal.splitlines())


def _located_line(document: Document, line: str) -> str:
    found = _REFUSED.match(line)
    number = _line_of(document, found["key"]) if found is not None else None
    return line.replace(INLINE, document.source if number is None else f"{document.source}:{number}", 1)


def _line_of(document: Document, key_text: str) -> int | None:
    """Return the line of a dotted key, or of the nearest key around it; None if there is none."""
    around = {dotted(key): place.line for key, place in document.places.items() if key}
    enclosing = [key for key in around if key_text == key or key_text.startswith((f"{key}.", f"{key}["))]
    return around[max(enclosing, key=len)] if enclosing else None


def _anchor_folders(content: dict[str, Any], model_set: ModelSet, folder: Path) -> None:
    for name, engine in model_set.engines.items():
        beside = folder / expanded(engine.source or "", name)
        if engine.source and beside.is_dir():
            declared = content["engines"][name]
            if "llm_config" in declared:
                declared["llm_config"]["model_loading_config"]["model_source"] = str(beside.resolve())
            else:
                declared["model"] = str(beside.resolve())
