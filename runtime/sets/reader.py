"""Reading a model set from disk: the YAML file, the prompts beside it, and where its weights are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.core.declaration.document import Document, Problem, document_of
from runtime.core.model_set.digest import Content, Weights
from runtime.core.model_set.engines import EngineSpec
from runtime.core.model_set.model_set import ModelSet
from runtime.core.model_set.review import reviewed
from runtime.errors import ModelFetchError, ModelSetError
from runtime.sets.sources import expanded, misnamed, unpinned, unpinned_beside, without_chat_template
from runtime.sets.yaml_text import read_yaml
from runtime.weights import models

MAX_FILE_BYTES = 1024 * 1024
"""A model set or a prompt over this is a mistake, not a model set."""

INLINE = "user_config.model_set"
"""Where a model set is that is no file."""


def read_content(
    wanted: str | Mapping[str, Any], root: Path, models_dir: Path, source: str = INLINE
) -> tuple[str, Content]:
    """Return the source's name and the content that ``user_config``'s ``model_set`` asks for.

    ``wanted`` is a path, relative to ``root``, or the mapping itself, which ``source`` then names.

    Raises:
        ModelSetError: unreadable or invalid; names file, line, key and reason of each mistake.

    """
    if isinstance(wanted, str):
        path = root / expanded(wanted, wanted)
        document, folder = read_document(path, wanted), path.parent
    elif isinstance(wanted, Mapping):
        document, folder = document_of(wanted, source), root
    else:
        raise ModelSetError(source, "", "it is a file's path, or the model set itself")
    model_set = read_model_set(document, folder)
    return document.source, Content.of(model_set, find_weights(model_set, document, folder, models_dir))


def read_document(path: Path, source: str) -> Document:
    """Return the YAML document in a file.

    Raises:
        ModelSetError: it cannot be read, is over a megabyte, is no YAML, or would expand into too much.

    """
    return read_yaml(read_text(path, source), source)


def read_model_set(document: Document, folder: Path) -> ModelSet:
    """Return the model set that a document declares; prompt files are read from ``folder``.

    Raises:
        ModelSetError: with all that is wrong.

    """
    return reviewed(
        document, lambda name: read_text(folder / expanded(name, document.source), document.source)
    )


def read_text(path: Path, source: str) -> str:
    """Return a file's text.

    Raises:
        ModelSetError: it cannot be read, is over a megabyte, or is no UTF-8.

    """
    try:
        if not path.is_file() and path.exists():
            raise ModelSetError(source, "", f"cannot read {path}: it is no file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelSetError(source, "", f"{path} is over {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a path may hold what no path can
        raise ModelSetError(source, "", f"cannot read {path}: {error}") from error


# -- weights --------------------------------------------------------------------------------------


def find_weights(
    model_set: ModelSet, document: Document, folder: Path, models_dir: Path
) -> dict[str, Weights]:
    """Return, by engine name, where each engine's weights are and their digest.

    An engine's source is looked up as a fetched model's name, then as a folder (relative to the model
    set's file), and is otherwise taken as a hub's id, whose commit the engine names.

    Raises:
        ModelSetError: a source is a path that does not exist or is probably mistyped, its folder cannot be
            read, or is that of a model that cannot chat.

    """
    problems = list(_faults_of_sources(model_set, folder, models_dir))
    if problems:
        raise document.refusal(problems)
    found = {}
    for name, engine in model_set.engines.items():
        if engine.source is not None:
            try:
                found[name] = _weights(engine.source, folder, models_dir)
            except ModelFetchError as error:
                raise document.refusal([Problem(("engines", name), str(error))]) from error
    return found


def _faults_of_sources(model_set: ModelSet, folder: Path, models_dir: Path) -> Iterator[Problem]:
    """Yield what is wrong with the declared places of weights, before any of them is hashed."""
    for name, engine in model_set.engines.items():
        if engine.source is None:
            continue
        try:
            problem = _fault_of_source(engine, ("engines", name), folder, models_dir)
        except ModelFetchError as error:
            problem = Problem(("engines", name), str(error))
        if problem is not None:
            yield problem


def _fault_of_source(
    engine: EngineSpec, key: tuple[str | int, ...], folder: Path, models_dir: Path
) -> Problem | None:
    source = engine.source or ""
    fetched = models.find(source, models_dir)
    path = fetched.path if fetched is not None else folder / expanded(source, source)
    if fetched is None and not path.is_dir():
        fault = misnamed(key, source, path) or unpinned(key, source, engine)
        return fault or unpinned_beside(key, engine, folder)
    return unpinned_beside(key, engine, folder) or without_chat_template(key, engine, path)


def _weights(engine_source: str, folder: Path, models_dir: Path) -> Weights:
    fetched = models.find(engine_source, models_dir)
    if fetched is not None:
        return Weights(
            location=str(fetched.path), digest=fetched.digest, size=models.weights_size(fetched.path)
        )
    path = folder / expanded(engine_source, engine_source)
    if path.is_dir():
        digest = models.weights_digest(path, models_dir)
        return Weights(location=str(path.resolve()), digest=digest, size=models.weights_size(path))
    return Weights(location=engine_source, digest=f"hub:{engine_source}")
