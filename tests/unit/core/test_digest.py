"""Identity by content: what changes a digest and what does not."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.model_set.digest import Content, Weights, change_digest
from runtime.core.model_set.model_set import parse
from runtime.sets.reader import read_content
from tests.unit.world import content, document

WEIGHTS = {"writer": Weights(location="/models/m", digest="a" * 64)}
DEPLOYMENT = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}


def real(**changes):
    """A set whose writer is a vLLM engine with the top-level keys ``changes``."""
    config = {
        "model_loading_config": {"model_id": "m", "model_source": "m"},
        "engine_kwargs": {"dtype": "bfloat16", "max_num_seqs": 16},
        "deployment_config": DEPLOYMENT,
    }
    engine = {"kind": "vllm", "llm_config": {**config, **changes.pop("llm_config", {})}, **changes}
    declared = document(1)
    declared["engines"]["writer"] = engine
    return declared


def content_of(declared, weights=WEIGHTS):
    return Content.of(parse(declared, "set.yaml", lambda name: name), weights)


@st.composite
def _reordered(draw, value):
    """Draw ``value`` with the keys of every mapping in it in some other order."""
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: draw(_reordered(value[key])) for key in keys}
    if isinstance(value, list):
        return [draw(_reordered(item)) for item in value]
    return value


# The order of keys, at whatever level, changes no digest.
@settings(max_examples=25)
@given(_reordered(real(llm_config={"runtime_env": {"env_vars": {"A": "1", "B": "2"}}})))
def test_key_order(declared):
    first = content_of(real(llm_config={"runtime_env": {"env_vars": {"A": "1", "B": "2"}}}))
    second = content_of(declared)
    assert (second.digest, second.engines) == (first.digest, first.engines)


# The same content in another file, with its prompt in a file or inline, has the same digest.
def test_another_file(tmp_path):
    inline, by_file = document(1), document(1)
    prompt = inline["chains"]["agent"]["steps"][1]["generate"]["prompt"]
    by_file["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "prompts/answer.j2"
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "answer.j2").write_text(prompt)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(inline, sort_keys=True))
    (tmp_path / "b.yaml").write_text("# a comment\n" + yaml.safe_dump(by_file, sort_keys=False))
    first, second, third = (
        read_content(wanted, tmp_path, tmp_path)[1] for wanted in ("a.yaml", "b.yaml", by_file)
    )
    assert first == second == third


# A duration that is written otherwise is the same duration.
def test_equal_durations():
    assert content(1, rollback_window="1m").digest == content(1, rollback_window="60s").digest


# Whatever changes what an engine is changes its digest and the set's, and no other engine's.
@pytest.mark.parametrize(
    ("declared", "weights"),
    [
        (real(), {"writer": Weights(location="/models/m", digest="b" * 64)}),
        (real(llm_config={"engine_kwargs": {"dtype": "bfloat16", "max_num_seqs": 17}}), WEIGHTS),
        (real(llm_config={"engine_kwargs": {"dtype": "bfloat16"}}), WEIGHTS),
        (real(llm_config={"deployment_config": {**DEPLOYMENT, "num_replicas": 2}}), WEIGHTS),
        (real(llm_config={"accelerator_type": "H100"}), WEIGHTS),
        (real(llm_config={"model_loading_config": {"model_id": "n", "model_source": "m"}}), WEIGHTS),
    ],
    ids=["weights", "argument", "argument left out", "replicas", "accelerator", "model id"],
)
def test_another_engine(declared, weights):
    before, after = content_of(real()), content_of(declared, weights)
    assert before.engines["writer"] != after.engines["writer"]
    assert before.engines["router"] == after.engines["router"]
    assert before.digest != after.digest


# Where weights were found changes nothing: their digest says what they are.
def test_weights_elsewhere():
    moved = content_of(
        real(llm_config={"model_loading_config": {"model_id": "m", "model_source": "./there"}}),
        {"writer": Weights(location="/elsewhere", digest="a" * 64)},
    )
    assert (moved.digest, moved.engines) == (content_of(real()).digest, content_of(real()).engines)


# How long an engine may take to load changes nothing of what it is.
def test_load_timeout():
    patient = content_of(real(load_timeout="2h"))
    assert (patient.digest, patient.engines) == (content_of(real()).digest, content_of(real()).engines)


# What is not an engine changes the set's digest and leaves all engines as they are.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("chains", "agent", "steps", 1, "generate", "prompt"), "another prompt"),
        (("chains", "agent", "steps", 1, "generate", "sampling"), {"temperature": 0.5}),
        (("chains", "agent", "deadline"), "31s"),
        (("chains", "agent", "samples", 0, "messages", 0, "content"), "other"),
        (("rollback_window",), "61s"),
        (("warmup",), {"timeout": "61s"}),
        (("chains", "agent", "samples", 0, "params"), {"max_tokens": 5}),
        (("name",), "other"),
    ],
)
def test_prompt_only(path, value):
    declared = document(1)
    node = declared
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    before, after = content(1), content_of(declared, {})
    assert after.digest != before.digest
    assert after.engines == before.engines


# Two engines of a set that are the same are one.
def test_equal_engines_are_one():
    declared = document(1)
    declared["engines"]["second"] = dict(declared["engines"]["writer"])
    engines = content_of(declared, {}).engines
    assert engines["second"] == engines["writer"] != engines["router"]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates are no Unicode text: YAML and JSON files cannot hold them.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


# Content that went through the journal's JSON is the same content with the same digests.
@given(st.dictionaries(st.sampled_from(["temperature", "stop", "extra"]), _JSON))
def test_content_round_trip(values):
    declared = real(llm_config={"engine_kwargs": values})
    declared["chains"]["agent"]["steps"][1]["generate"]["sampling"] = values
    before = content_of(declared)
    after = Content.model_validate_json(before.model_dump_json())
    assert after == before
    again = Content.of(after.model_set, after.weights)
    assert (again.digest, again.engines) == (before.digest, before.engines)


# An integer key, which YAML has and JSON has not, is the same before the journal and after it.
def test_integer_keys_round_trip():
    declared = document(1)
    declared["chains"]["agent"]["steps"][1]["generate"]["sampling"] = {"logit_bias": {50256: -100}}
    before = content_of(declared, {})
    assert Content.model_validate_json(before.model_dump_json()) == before


# A user_config that is nested too deep has a digest, too: it is refused with it.
def test_change_nested_too_deep():
    deep = []
    for _ in range(2000):
        deep = [deep]
    assert len(change_digest({"model_set": deep})) == 64
