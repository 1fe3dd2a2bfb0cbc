"""Checks of an engine's declared weights: paths, misspelt names, missing commits, and chat templates."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from runtime.core.declaration.document import Key, Problem
from runtime.core.model_set.engines import EngineSpec, VllmEngineSpec
from runtime.errors import ModelSetError
from runtime.weights import models

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LONGEST_ID = 128
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MISTYPED = 0.8
"""How alike a name must be to one that is here, to be taken for it rather than for a hub's id."""

_MAX_CONFIG_BYTES = 64 * 2**20
"""Of a tokenizer's configuration; real ones with all added tokens have a few megabytes."""

_WITH_FALLBACK = frozenset(
    {
        "blip-2", "clip", "colpali", "deepseek_ocr", "deepseek_ocr2", "deepseek_vl_v2", "minicpmv",
        "minicpmv4_6", "paligemma", "siglip", "siglip2", "unlimited-ocr",
    }
)  # fmt: skip
"""Types of models for which vLLM has a chat template of its own."""


def expanded(path: str, source: str) -> Path:
    """Return a path with ``~`` as the home folder that it stands for.

    Raises:
        ModelSetError: there is no such user.

    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ModelSetError(source, "", f"{path}: {error}") from error


def misnamed(key: Key, source: str, path: Path) -> Problem | None:
    """Return what is wrong with a source that has no folder here; None if it can be a hub's id."""
    if source in models.CATALOGUE:
        return Problem(key, f"model {source!r} has not been fetched; run: interlock models fetch {source}")
    beside = _beside(path)
    if source.startswith((".", "/", "~")):
        near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
        return Problem(key, f"there is no folder {path}", _in_place_of(source, near))
    if "://" in source:  # of an object store, which ray.serve.llm reads
        return None
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=_MISTYPED)
    if near:
        return Problem(key, f"there is no folder {path}", _in_place_of(source, near))
    known = difflib.get_close_matches(source, models.CATALOGUE, n=1, cutoff=_MISTYPED)
    if known:
        return Problem(key, f"there is no model {source!r}", known[0])
    if not _HUB_ID.fullmatch(source) or len(source) > _LONGEST_ID:
        return Problem(key, f"{source!r} is no folder, and no hub has such a name")
    return None


def unpinned(key: Key, source: str, engine: EngineSpec) -> Problem | None:
    """Return that an engine names a hub's id without a commit: the model behind it can change any day.

    Replicas that start later would then run another model under the same digest.
    """
    if "://" in source or (engine.pinned is not None and _COMMIT.fullmatch(engine.pinned)):
        return None
    place = (*key, "llm_config", "engine_kwargs") if engine.kind == "vllm" else key
    reason = f"{source!r} is a hub's: say which commit of it, as `revision: <its 40 hex digits>`"
    return Problem(place, reason)


def unpinned_beside(key: Key, engine: EngineSpec, folder: Path) -> Problem | None:
    """Return which additional model an engine takes from a hub without naming the commit."""
    if not isinstance(engine, VllmEngineSpec):
        return None
    kwargs = engine.llm_config.engine_kwargs
    drafts = kwargs.get("speculative_config")
    drafts = drafts if isinstance(drafts, dict) else {}
    named = (
        ("tokenizer", kwargs.get("tokenizer"), "tokenizer_revision", kwargs.get("tokenizer_revision")),
        ("speculative_config", drafts.get("model"), "revision", drafts.get("revision")),
    )
    for name, source, setting, revision in named:
        of_hub = isinstance(source, str) and _HUB_ID.fullmatch(source) and not (folder / source).is_dir()
        if of_hub and source != engine.source and not _COMMIT.fullmatch(str(revision)):
            reason = f"{source!r} is a hub's: say which commit of it, as `{setting}: <its 40 hex digits>`"
            return Problem((*key, "llm_config", "engine_kwargs", name), reason)
    return None


def _beside(path: Path) -> list[str]:
    """Return the names of the folders where the path would be one; not of hidden ones."""
    try:
        return [other.name for other in path.parent.iterdir() if other.is_dir() and other.name[0] != "."]
    except (OSError, ValueError):
        return []


def _in_place_of(source: str, near: list[str]) -> str | None:
    around, slash, _ = source.rpartition("/")
    return f"{around}{slash}{near[0]}" if near else None


def without_chat_template(key: Key, engine: EngineSpec, folder: Path) -> Problem | None:
    """Return that a folder's tokenizer has no chat template: vLLM finds out only after a minute's load.

    A folder without a tokenizer configuration in Hugging Face's form is not checked.
    """
    if not isinstance(engine, VllmEngineSpec) or _has_own_template(engine):
        return None
    config = _json_in(folder / "tokenizer_config.json")
    if config is None or config.get("chat_template"):
        return None
    if any(folder.glob("chat_template*")) or any(folder.glob("additional_chat_templates/*")):
        return None
    if (_json_in(folder / "config.json") or {}).get("model_type") in _WITH_FALLBACK:
        return None
    return Problem(
        key,
        f"the tokenizer in {folder} has no chat template, so the model cannot answer chats; take one that is "
        "tuned for them (its name often ends in -Instruct), or put a chat_template.jinja into the folder",
    )


def _has_own_template(engine: VllmEngineSpec) -> bool:
    kwargs = engine.llm_config.engine_kwargs
    return bool(kwargs.get("chat_template") or kwargs.get("tokenizer")) or kwargs.get(
        "tokenizer_mode"
    ) not in (
        None,
        "auto",
        "slow",
        "hf",
    )


def _json_in(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a file, or None if it has none that can be read: the engine will report that."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
