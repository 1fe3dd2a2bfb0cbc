"""Where weights are said to be: a mistyped name is no hub's id, and a model that cannot chat is told of before a load."""

# ruff: noqa: E501 - a case is easier to read on one line

import json
import warnings

import pytest

from runtime.core.model_set.digest import engine_digest
from runtime.core.model_set.engines import TransformersEngineSpec, VllmEngineSpec
from runtime.errors import ModelSetError
from runtime.sets.reader import read_content
from runtime.sets.sources import misnamed, without_chat_template
from tests.unit.core.test_specs import WRITER, changed


def writer(source, **engine_kwargs):
    config = {
        "model_loading_config": {"model_id": "m", "model_source": str(source)},
        "engine_kwargs": engine_kwargs,
    }
    return {"kind": "vllm", "llm_config": config}


# A source that is nearly the name of a folder or of a model that can be fetched is refused with it.
@pytest.mark.parametrize(
    ("source", "says", "nearest"),
    [
        ("weights/smolm", "there is no folder", "weights/smollm"),
        ("./weights/smolm", "there is no folder", "./weights/smollm"),
        ("wieghts", "there is no folder", "weights"),
        ("/no/such/folder", "there is no folder /no/such/folder", None),
        ("smollm2-135m-instrct", "there is no model 'smollm2-135m-instrct'", "smollm2-135m-instruct"),
        ("all-minilm-l6-v2", "run: interlock models fetch all-minilm-l6-v2", None),
        ("a/b/c", "no hub has such a name", None),
        ("two words", "no hub has such a name", None),
        ("x" * 5000, "no hub has such a name", None),
    ],
)
def test_mistyped(tmp_path, source, says, nearest):
    (tmp_path / "weights" / "smollm").mkdir(parents=True)
    problem = misnamed(("engines", "writer"), source, tmp_path / source)
    assert says in problem.reason
    assert problem.nearest == nearest


# What is no folder's name stays a hub's id, or an address in an object store.
@pytest.mark.parametrize("source", ["Qwen/Qwen3-8B", "gpt2", "s3://bucket/model", "weights/other"])
def test_of_a_hub(tmp_path, source):
    (tmp_path / "weights" / "smollm").mkdir(parents=True)
    assert misnamed((), source, tmp_path / source) is None


# `~` is the home folder: in a set's path, in its prompts and in its weights.
def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "answer.j2").write_text("from home")
    declared = changed(("engines", "router"), {"kind": "transformers", "model": "~/encoder"})
    declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "~/answer.j2"
    (tmp_path / "v1.yaml").write_text(json.dumps(declared))
    _, content = read_content("~/v1.yaml", tmp_path / "elsewhere", tmp_path / "models")
    assert content.weights["router"].location == str(tmp_path / "encoder")
    assert content.model_set.chains["agent"].steps[1].generate.prompt == "from home"
    with pytest.raises(ModelSetError, match="nobody-here"):
        read_content("~nobody-here/v1.yaml", tmp_path, tmp_path)


def template_fault(folder, files, **engine_kwargs):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return without_chat_template((), VllmEngineSpec.model_validate(writer(folder, **engine_kwargs)), folder)


# A folder whose tokenizer has no chat template is refused; one that has, or brings its own, or does not say is not.
@pytest.mark.parametrize(
    ("files", "engine_kwargs", "refused"),
    [
        ({"tokenizer_config.json": {}}, {}, True),
        ({"tokenizer_config.json": {"chat_template": "{{ messages }}"}}, {}, False),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}]}}, {}, False),
        ({"tokenizer_config.json": {}, "chat_template.jinja": "x"}, {}, False),
        ({"tokenizer_config.json": {}, "chat_template.json": {}}, {}, False),
        ({"tokenizer_config.json": {}}, {"chat_template": "x"}, False),
        ({"tokenizer_config.json": {}}, {"tokenizer": "other"}, False),
        ({"tokenizer_config.json": {}}, {"tokenizer_mode": "mistral"}, False),
        ({"tokenizer_config.json": {}, "config.json": {"model_type": "paligemma"}}, {}, False),
        ({"tokenizer_config.json": {}, "config.json": {"model_type": "llama"}}, {}, True),
        ({"tokenizer_config.json": []}, {}, False),
        ({"config.json": {}}, {}, False),
    ],
)
def test_chat_template(tmp_path, files, engine_kwargs, refused):
    assert (template_fault(tmp_path, files, **engine_kwargs) is not None) == refused


# An encoder needs none.
def test_an_encoder_does_not_chat(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert without_chat_template((), TransformersEngineSpec(kind="transformers", model="m"), tmp_path) is None


# Every engine whose weights are not there is told of, with the line, before one is hashed.
def test_all_sources_at_once(tmp_path):
    declared = changed(WRITER, writer("./writer"))
    declared["engines"]["router"] = {"kind": "transformers", "model": "./router"}
    (tmp_path / "v1.yaml").write_text(json.dumps(declared, indent=1))
    with pytest.raises(ModelSetError) as caught:
        read_content("v1.yaml", tmp_path, tmp_path)
    first, second = str(caught.value).splitlines()
    assert "engines.router: there is no folder" in first
    assert "engines.writer: there is no folder" in second
    assert caught.value.line == 4


# The names of Serve's options are those of the Ray that is installed, but for what is Interlock's.
def test_deployment_options():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.config import AutoscalingConfig
        from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema
    from runtime.core.model_set import deployment_options as options

    ours = {"name", "user_config"}
    assert set(DeploymentSchema.model_fields) - ours == options.OPTIONS - {"max_constructor_retry_count"}
    assert set(RayActorOptionsSchema.model_fields) == options.ACTOR_OPTIONS
    assert {name for name in AutoscalingConfig.model_fields if name[0] != "_"} == options.AUTOSCALING_OPTIONS


# A model that a hub's id names is pinned to a commit: else replicas that start later may be another model.
@pytest.mark.parametrize("revision", [None, "main", "abc", "g" * 40])
def test_a_hubs_id_without_a_commit(tmp_path, revision):
    said = {} if revision is None else {"revision": revision}
    engines = {
        "router": {"kind": "transformers", "model": "org/encoder", **said},
        "writer": writer("org/writer", **said),
    }
    for name, declared in engines.items():
        with pytest.raises(ModelSetError, match=rf"engines\.{name}.*say which commit.*revision"):
            read_content(changed(("engines", name), declared), tmp_path, tmp_path / "models")


# So are the tokenizer and the draft model that an engine takes from elsewhere.
@pytest.mark.parametrize(
    ("kwargs", "pinned"),
    [
        ({"tokenizer": "org/tokenizer"}, {"tokenizer_revision": "a" * 40}),
        (
            {"speculative_config": {"model": "org/draft"}},
            {"speculative_config": {"model": "org/draft", "revision": "a" * 40}},
        ),
    ],
    ids=["tokenizer", "speculative_config"],
)
def test_other_models_of_a_hub(tmp_path, kwargs, pinned):
    def read(**more):
        declared = writer("org/writer", revision="b" * 40, **{**kwargs, **more})
        return read_content(changed(("engines", "writer"), declared), tmp_path, tmp_path / "models")

    with pytest.raises(ModelSetError, match=rf"engine_kwargs\.{next(iter(kwargs))}.*say which commit"):
        read()
    assert read(**pinned)[1].engines["writer"]


# The commit is in the engine's digest: another commit is another engine.
def test_a_hubs_id_with_its_commit(tmp_path):
    def digest(revision):
        declared = changed(("engines", "writer"), writer("org/writer", revision=revision))
        return read_content(declared, tmp_path, tmp_path / "models")[1].engines["writer"]

    assert digest("a" * 40) == digest("a" * 40) != digest("b" * 40)


# An encoder without a commit has the digest that it had before there were any.
def test_the_digest_of_an_encoder_of_a_folder():
    spec = TransformersEngineSpec(kind="transformers", model="m")
    assert engine_digest(spec, "w") == engine_digest(spec.model_copy(update={"model": "n"}), "w")
    assert engine_digest(spec, "w") == "b840eb313a3b7f654679ade3f70955fec406d23d7587fa4cb1b34df005fa3475"
