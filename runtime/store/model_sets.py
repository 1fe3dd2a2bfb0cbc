"""Reading a model set from disk: the YAML file, the prompts beside it, and where its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runtime.core.digest import Content, Weights
from runtime.core.specs import ModelSet, parse
from runtime.errors import ModelSetError
from runtime.store import models

MAX_FILE_BYTES = 1024 * 1024
"""A model set or a prompt over this is a mistake, not a model set."""


def read_content(wanted: str | Mapping[str, Any], root: Path, models_dir: Path) -> tuple[str, Content]:
    """Return the source's name and the content that ``user_config``'s ``model_set`` asks for.

    ``wanted`` is a path, relative to ``root``, or the mapping itself.

    Raises:
        ModelSetError: unreadable or invalid; says which file, which key and why.

    """
    if isinstance(wanted, str):
        path = Path(wanted) if Path(wanted).is_absolute() else root / wanted
        source, document, folder = wanted, _read_yaml(path, wanted), path.parent
    else:
        source, document, folder = "user_config.model_set", wanted, root
    model_set = parse(document, source, lambda name: _read_text(folder / name, source))
    return source, Content.of(model_set, find_weights(model_set, source, folder, models_dir))


def _read_text(path: Path, source: str) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelSetError(source, "", f"{path} is over {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelSetError(source, "", f"cannot read {path}: {error}") from error


def _read_yaml(path: Path, source: str) -> Any:
    try:
        return yaml.safe_load(_read_text(path, source))
    except yaml.YAMLError as error:
        raise ModelSetError(source, "", f"not valid YAML: {error}") from error


def find_weights(model_set: ModelSet, source: str, folder: Path, models_dir: Path) -> dict[str, Weights]:
    """Return, by engine name, where each engine's weights are and their digest.

    An engine's source is looked up as a fetched model's name, then as a folder (relative to the model
    set's file), and is otherwise taken as a hub's id, which stands for its own content.

    Raises:
        ModelSetError: the source is a path that does not exist.

    """
    found = {}
    for name, engine in model_set.engines.items():
        if engine.source is not None:
            found[name] = _weights(engine.source, f"engines.{name}", source, folder, models_dir)
    return found


def _weights(engine_source: str, key: str, source: str, folder: Path, models_dir: Path) -> Weights:
    fetched = models.find(engine_source, models_dir)
    if fetched is not None:
        return Weights(
            location=str(fetched.path), digest=fetched.digest, size=models.weights_size(fetched.path)
        )
    path = folder / engine_source
    if path.is_dir():
        digest = models.weights_digest(path, models_dir)
        return Weights(location=str(path.resolve()), digest=digest, size=models.weights_size(path))
    if engine_source.startswith((".", "/", "~")):
        raise ModelSetError(source, key, f"there is no folder {path}")
    if engine_source in models.CATALOGUE:
        reason = f"model {engine_source!r} has not been fetched; run: interlock models fetch {engine_source}"
        raise ModelSetError(source, key, reason)
    return Weights(location=engine_source, digest=f"hub:{engine_source}")
