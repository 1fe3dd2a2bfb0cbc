"""The identity of a folder of weights: one digest over the content of its files.

The digest is the SHA-256 of the sorted lines ``<sha256 of a file>  <its path in the folder>``, for
the files that can change what the model answers. ``sha256sum``, ``sort`` and ``sha256sum`` again
make the same one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from runtime.errors import ModelFetchError

MANIFEST = "interlock-model.json"
"""Name of the file that describes a fetched model."""

_WEIGHTS = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth"})
_CACHE = ".digests"
_LOG = logging.getLogger(__name__)


class FileDigest(BaseModel):
    """One file of a model: path in its folder (with ``/``), SHA-256 in hex, size in bytes."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    size: int


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> Iterator[PurePosixPath]:
    """Yield the files under ``folder`` in order: without hidden ones and without the manifest."""
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and str(relative) != MANIFEST:
            yield relative


def digest_files(folder: Path) -> tuple[FileDigest, ...]:
    """Return the digest of every file under ``folder``."""
    return tuple(
        FileDigest(path=str(path), sha256=sha256_of(folder / path), size=(folder / path).stat().st_size)
        for path in files_in(folder)
    )


def model_digest(files: Iterable[FileDigest]) -> str:
    """Return the digest of a model made of ``files``; texts for people do not count."""
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files if not _is_for_people(file.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_for_people(path: str) -> bool:
    name = PurePosixPath(path).name.upper()
    return name.endswith(".MD") or name.startswith(("README", "LICENSE", "LICENCE", "NOTICE"))


def weights_size(folder: Path) -> int:
    """Return how many bytes of weights a loader reads from ``folder``."""
    return sum((folder / path).stat().st_size for path in files_in(folder) if path.suffix in _WEIGHTS)


def weights_digest(folder: Path, models_dir: Path) -> str:
    """Return the digest of a folder of weights that did not come from the catalogue.

    Same definition as a fetched model's. A file is hashed again only when its size or its time of
    change differ from those noted under ``models_dir/.digests``: an 8B model is hashed once.

    Raises:
        ModelFetchError: ``folder`` is not a folder, holds no file, cannot be read, or is being written to.

    """
    cache = models_dir / _CACHE / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()}.json"
    known = _read_cache(cache)
    try:
        fresh = dict(_digest_at_rest(folder, relative, known) for relative in files_in(folder))
    except OSError as error:
        raise ModelFetchError(f"weights in {folder} cannot be read: {error}") from error
    if not fresh:
        raise ModelFetchError(f"{folder} is not a folder with the files of a model")
    if fresh != known:
        _write_cache(cache, fresh)
    return model_digest(fresh.values())


def _digest_at_rest(
    folder: Path, relative: PurePosixPath, known: dict[str, FileDigest]
) -> tuple[str, FileDigest]:
    """Return a file's fingerprint and its digest, from ``known`` if it has that fingerprint."""
    fingerprint = _fingerprint(folder, relative)
    if fingerprint in known:
        return fingerprint, known[fingerprint]
    path = folder / relative
    file = FileDigest(path=str(relative), sha256=sha256_of(path), size=path.stat().st_size)
    if _fingerprint(folder, relative) != fingerprint:
        raise ModelFetchError(f"{path} changed while it was read; wait until it is complete")
    return fingerprint, file


def _fingerprint(folder: Path, relative: PurePosixPath) -> str:
    stat = (folder / relative).stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {relative}"


def _read_cache(cache: Path) -> dict[str, FileDigest]:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {fingerprint: FileDigest.model_validate(file) for fingerprint, file in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # a cache that cannot be used costs time, nothing else
        _LOG.warning("cannot read the cached digests in %s; hashing again: %s", cache, error)
        return {}


def _write_cache(cache: Path, digests: dict[str, FileDigest]) -> None:
    partial = cache.with_suffix(f".{uuid.uuid4().hex}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(
            json.dumps({fingerprint: file.model_dump() for fingerprint, file in digests.items()}),
            encoding="utf-8",
        )
        partial.replace(cache)
    except OSError as error:  # models may lie on a file system that is read-only here
        _LOG.warning("cannot cache the digests in %s; they will be computed again: %s", cache, error)
