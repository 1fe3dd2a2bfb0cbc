"""Reading a model set from disk: what is wrong with a file is said with the file."""

import time
from pathlib import Path

import pytest
import yaml

from runtime.errors import ModelSetError
from runtime.sets import reader as model_sets
from runtime.sets.reader import MAX_FILE_BYTES, read_content
from runtime.weights.digests import weights_digest
from tests.unit.world import document

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sets").mkdir()
    return tmp_path / "sets"


def write(folder, declared, name="v1.yaml"):
    (folder / name).write_text(declared if isinstance(declared, str) else yaml.safe_dump(declared))


def with_prompt(prompt):
    declared = document(1)
    declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = prompt
    return declared


def read(folder, name="v1.yaml"):
    return read_content(f"{folder.name}/{name}", folder.parent, folder.parent / "models")


def refusal(folder, name="v1.yaml"):
    with pytest.raises(ModelSetError) as caught:
        read(folder, name)
    return caught.value


def fetched(models_dir):
    """Play fetched models: the lookup by name finds a folder in ``models_dir``."""

    class Model:
        def __init__(self, name):
            self.path, self.digest = models_dir / name, f"digest of {name}"

    return lambda name, _models_dir: Model(name)


# A prompt file is read from beside the set, and is the prompt.
def test_prompt_file(folder):
    write(folder, with_prompt("answer.j2"))
    (folder / "answer.j2").write_text("You are {{ steps.triage.choice }}.")
    source, content = read(folder)
    assert source == "sets/v1.yaml"
    assert content.model_set.chains["agent"].steps[1].generate.prompt == "You are {{ steps.triage.choice }}."


# A prompt file that is missing, too big or not text is refused with the set's file and the key.
@pytest.mark.parametrize(
    ("bytes_in_file", "says"),
    [
        (None, "cannot read"),
        (b"x" * (MAX_FILE_BYTES + 1), f"is over {MAX_FILE_BYTES} bytes"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_unusable_prompt_file(folder, bytes_in_file, says):
    write(folder, with_prompt("answer.j2"))
    if bytes_in_file is not None:
        (folder / "answer.j2").write_bytes(bytes_in_file)
    error = refusal(folder)
    assert (error.source, error.key) == ("sets/v1.yaml", "chains.agent.steps[1].generate.prompt")
    assert says in error.reason
    assert "answer.j2" in error.reason


# A bad template in a prompt file is refused with the set's file, the key and the prompt's line.
def test_bad_template_in_a_file(folder):
    write(folder, with_prompt("answer.j2"))
    (folder / "answer.j2").write_text("first\n{{ steps.later.text }}")
    error = refusal(folder)
    assert error.key == "chains.agent.steps[1].generate.prompt"
    assert "line 2: 'later' is not an earlier step" in error.reason


# A set that is missing, not YAML, or not a mapping is refused as a file.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot read"),
        ("name: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "means nothing here"),
        ("", "a model set is a mapping"),
        ("x" * (MAX_FILE_BYTES + 1), "is over"),
    ],
)
def test_unusable_file(folder, text, says):
    if text is not None:
        write(folder, text)
    error = refusal(folder)
    assert (error.source, error.key) == ("sets/v1.yaml", "")
    assert says in error.reason


# A set may be the mapping itself; its faults are then those of ``user_config``.
def test_inline(folder):
    source, content = read_content(document(1), folder, folder)
    assert (source, content.model_set.name) == ("user_config.model_set", "support")
    with pytest.raises(ModelSetError, match=r"^user_config\.model_set: engines: "):
        read_content({**document(1), "engines": []}, folder, folder)


# The sets that this repository ships can be read, and the second reuses the first one's router.
def test_shipped_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(model_sets.models, "find", fetched(tmp_path))
    first, second = (
        read_content(f"models/support/{version}.yaml", ROOT, tmp_path)[1] for version in ("v1", "v2")
    )
    assert first.engines["router"] == second.engines["router"]
    assert first.engines["writer"] != second.engines["writer"]
    assert first.weights["writer"].location == str(tmp_path / "smollm2-135m-instruct")


# A model of the catalogue that has not been fetched is refused with the command that fetches it.
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_unfetched_model(tmp_path, version):
    with pytest.raises(ModelSetError) as caught:
        read_content(f"models/support/{version}.yaml", ROOT, tmp_path)
    assert caught.value.key == "engines.router"
    assert "interlock models fetch all-minilm-l6-v2" in caught.value.reason


# Weights in a folder of the user's own are found beside the set; a folder that is not there is refused.
def test_weights_in_a_folder(folder):
    declared = document(1)
    declared["engines"]["router"] = {"kind": "transformers", "model": "./encoder"}
    write(folder, declared)
    error = refusal(folder)
    assert error.key == "engines.router"
    assert "there is no folder" in error.reason
    (folder / "encoder").mkdir()
    (folder / "encoder" / "model.safetensors").write_bytes(b"weights")
    found = read(folder)[1].weights["router"]
    assert found.location == str(folder / "encoder")
    assert found.digest == weights_digest(folder / "encoder", folder.parent / "models")


# A source that is neither fetched nor a folder is a hub's id, which its commit makes stand for content.
def test_weights_of_a_hub(folder):
    declared = document(1)
    declared["engines"]["router"] = {
        "kind": "transformers",
        "model": "someone/encoder",
        "revision": "5" * 40,
    }
    write(folder, declared)
    found = read(folder)[1].weights
    assert (found["router"].location, found["router"].digest) == ("someone/encoder", "hub:someone/encoder")
    assert "writer" not in found


# What YAML reads otherwise than it is written is told with its line, where text or a time belongs.
@pytest.mark.parametrize(
    ("right", "written", "says"),
    [
        (
            "content: my bill",
            "content: no",
            "samples[0].messages[0].content: is text, or a list of parts; no is read",
        ),
        ("content: my bill", "content: 2026-11-25", "is read as a date: put it in quotes"),
        ("deadline: 30s", "deadline: 1:30", "1:30 is read as 90: put it in quotes"),
        (
            "- bill",
            "- yes",
            "choices.a[0]: Input should be a valid string; yes is read as true: put it in quotes",
        ),
        ("- bill", "- 7", "choices.a[0]: Input should be a valid string; 7 is a number: put it in quotes"),
        ("          a:", "          no:", "the key no is read as false: put it in quotes"),
        ("name: support", "name: 5", "name: Input should be a valid string; 5 is a number: put it in quotes"),
    ],
)
def test_other_than_written(folder, right, written, says):
    text = yaml.safe_dump(document(1), indent=2)
    assert right in text
    changed = text.replace(right, written, 1)
    write(folder, changed)
    line = next(
        n for n, (a, b) in enumerate(zip(text.splitlines(), changed.splitlines(), strict=True), 1) if a != b
    )
    told = str(refusal(folder))
    assert says in told
    assert f"sets/v1.yaml:{line}: " in told


# A set that refuses takes milliseconds, whatever its templates do.
def test_slow_templates(folder):
    declared = with_prompt("{% for i in range(19000) %}{{ i }}{% endfor %}")
    declared["chains"]["agent"]["samples"] *= 500
    write(folder, declared)
    begun = time.thread_time()
    read(folder)
    assert time.thread_time() - begun < 10.0
