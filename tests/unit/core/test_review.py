"""What a model set is refused for as it is read, beyond its form: nothing of it is left to a load or a request."""

# ruff: noqa: E501 - a case is easier to read on one line

import copy
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.core.declaration.document import MAX_PROBLEMS, document_of
from runtime.core.model_set.model_set import parse
from runtime.core.model_set.review import review, reviewed
from runtime.errors import ModelSetError
from runtime.sets.reader import read_content
from runtime.sets.yaml_text import read_yaml
from tests.unit.core.test_specs import CHAIN, DROP, GENERATE, VLLM, WRITER, changed
from tests.unit.world import document

SAMPLE = (*CHAIN, "samples", 0)
MESSAGE = (*SAMPLE, "messages", 0)
DEPLOYMENT = (*WRITER, "deployment_config")


def refusal(declared):
    with pytest.raises(ModelSetError) as caught:
        reviewed(document_of(declared, "v1.yaml"), lambda name: name)
    return caught.value


# Each of these is refused where it stands, in words that say what is right.
@pytest.mark.parametrize(
    ("path", "value", "key", "says", "nearest"),
    [
        ((*CHAIN, "deadline"), "0s", "chains.agent.deadline", "is over at once", None),
        ((*CHAIN, "deadline"), "99999999999d", "chains.agent.deadline", "is longer than 1d", None),
        ((*CHAIN, "deadline"), "9" * 400 + "d", "chains.agent.deadline", "is longer than 1d", None),
        ((*WRITER, "load_timeout"), "2d", "engines.writer.load_timeout", "is longer than 1d", None),
        (("warmup",), {"timeout": "0s"}, "warmup.timeout", "is over at once", None),
        (("rollback_window",), "31d", "rollback_window", "is longer than 30d", None),
        (("engines", "idle"), {"kind": "fake"}, "engines.idle", "no chain uses it", None),
        ((*GENERATE, "sampling"), {"temprature": 1}, "{step}.sampling.temprature", "no such", "temperature"),
        (
            (*GENERATE, "sampling"),
            {"temperature": "hot"},
            "{step}.sampling.temperature",
            "valid number",
            None,
        ),
        ((*SAMPLE, "params"), {"n": 0}, "chains.agent.samples[0].params.n", "greater than", None),
        ((*MESSAGE, "role"), DROP, "{message}.role", "is missing; it is one of", None),
        ((*MESSAGE, "role"), "usr", "{message}.role", "is one of", "user"),
        ((*MESSAGE, "content"), DROP, "{message}.content", "is missing", None),
        ((*MESSAGE, "content"), False, "{message}.content", "false is false: put it in quotes", None),
        ((*MESSAGE, "content"), 7, "{message}.content", "7 is a number: put it in quotes", None),
        ((*MESSAGE, "content"), ["x"], "{message}.content[0]", "a part is a mapping", None),
        (
            (*MESSAGE, "content"),
            [{"type": "text", "text": 5}],
            "{message}.content[0].text",
            "in quotes",
            None,
        ),
        (DEPLOYMENT, {"num_replicas": 0}, "engines.writer.deployment_config.num_replicas", "from 1", None),
        (
            DEPLOYMENT,
            {"num_replicas": 10**9},
            "engines.writer.deployment_config.num_replicas",
            "to 4096",
            None,
        ),
        (DEPLOYMENT, {"num_replica": 2}, "engines.writer.deployment_config.num_replica", "", "num_replicas"),
        (DEPLOYMENT, {"zzz": {}}, "engines.writer.deployment_config.zzz", "unknown key", None),
        (
            DEPLOYMENT,
            {"ray_actor_options": {"num_cpu": 1}},
            "engines.writer.deployment_config.ray_actor_options.num_cpu",
            "unknown key",
            "num_cpus",
        ),
        (
            DEPLOYMENT,
            {"autoscaling_config": {"min_replicas": -1}},
            "engines.writer.deployment_config.autoscaling_config.min_replicas",
            "from 0",
            None,
        ),
        ((*WRITER, "shards"), 10**6, "engines.writer.shards", "is more than 1024", None),
        (
            (*GENERATE, "prompt"),
            "{{ steps.triage.chioce }}",
            "{step}.prompt",
            "gives choice and scores",
            "choice",
        ),
        ((*GENERATE, "prompt"), "{{ steps['triage'].text }}", "{step}.prompt", "not 'text'", None),
        (
            (*GENERATE, "prompt"),
            "{{ steps[input].choice }}",
            "{step}.prompt",
            "fails on samples[0] where",
            None,
        ),
        (
            (*GENERATE, "prompt"),
            "{{ messages[0].content + 1 }}",
            "{step}.prompt",
            "fails on samples[0]",
            None,
        ),
        ((*GENERATE, "prompt"), "{{ 'a' * 10 ** 9 }}", "{step}.prompt", "characters", None),
        ((*GENERATE, "prompt"), "{{ 1 }}" * 3000, "{step}.prompt", "over 5000 names", None),
        ((*GENERATE, "prompt"), "{% for a in input %}" * 30 + "{% endfor %}" * 30, "{step}.prompt", "", None),
    ],
)
def test_refused(path, value, key, says, nearest):
    error = refusal(changed(path, value))
    places = {"step": "chains.agent.steps[1].generate", "message": "chains.agent.samples[0].messages[0]"}
    assert (error.key, error.nearest) == (key.format(**places), nearest)
    assert says in error.reason
    assert len(str(error)) < 2000


# What vLLM is told and the plan reckons with has the form that both need.
@pytest.mark.parametrize(
    ("config", "key", "says"),
    [
        ({"engine_kwargs": {"max_model_len": "8k"}}, "engine_kwargs.max_model_len", "whole number"),
        ({"engine_kwargs": {"tensor_parallel_size": 10**9}}, "engine_kwargs.tensor_parallel_size", "to 1024"),
        ({"engine_kwargs": {"gpu_memory_utilization": 45}}, "engine_kwargs.gpu_memory_utilization", "over 0"),
        ({"deployment_config": {"num_replicas": "two"}}, "deployment_config.num_replicas", "whole number"),
        (
            {"runtime_env": {"env_vars": {"A": 1}}},
            "runtime_env.env_vars.A",
            "1 is a number: put it in quotes",
        ),
        (
            {"runtime_env": {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1GiB"}}},
            "runtime_env.env_vars.VLLM_CPU_KVCACHE_SPACE",
            "whole number of GiB",
        ),
        ({"model_loading_config": {"model_id": 7}}, "model_loading_config.model_id", "put it in quotes"),
    ],
)
def test_vllm(config, key, says):
    error = refusal(changed(WRITER, {"kind": "vllm", "llm_config": {**VLLM["llm_config"], **config}}))
    assert error.key == f"engines.writer.llm_config.{key}"
    assert says in error.reason


# What is right is not refused: the set of the other tests, an answer with tool calls, several windows.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rollback_window",), "0s"),
        (
            DEPLOYMENT,
            {"num_replicas": "auto", "ray_actor_options": {"num_cpus": 0}, "max_queued_requests": -1},
        ),
        (DEPLOYMENT, {"autoscaling_config": {"min_replicas": 0, "max_replicas": 4}}),
        (
            (*SAMPLE, "messages"),
            [{"role": "assistant", "tool_calls": [{"id": "a"}]}, {"role": "user", "content": ""}],
        ),
        (
            (*MESSAGE, "content"),
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}],
        ),
        ((*GENERATE, "prompt"), "{{ steps.triage.scores.items() | list }} {{ steps.triage.get('choice') }}"),
    ],
)
def test_right(path, value):
    assert reviewed(document_of(changed(path, value), "v1.yaml"), lambda name: name)


# A prompt that computes on what an earlier step has written is left to the warm-up: no such text is here.
def test_prompt_of_an_earlier_text():
    declared = document(1)
    steps = declared["chains"]["agent"]["steps"]
    steps.insert(1, {"id": "draft", "generate": {"engine": "writer"}})
    steps[2]["generate"]["prompt"] = "{{ steps.draft.text.split(';')[3] }}"
    assert reviewed(document_of(declared, "v1.yaml"), lambda name: name)
    steps[2]["generate"]["prompt"] = "{{ steps.draft.choice }}"
    assert refusal(declared).reason.endswith("step 'draft' gives text, not 'choice'")


# Everything that is wrong is told at once, in the file's order; a misspelt key first, for it explains others.
def test_all_at_once():
    declared = changed((*CHAIN, "deadline"), "0s")
    declared["engines"]["idle"] = {"kind": "fake"}
    lines = str(refusal(declared)).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["engines.idle", "chains.agent.deadline"]
    many = {
        **document(1),
        "engines": {**document(1)["engines"]} | {f"e{n}": {"kind": "fake"} for n in range(50)},
    }
    lines = str(refusal(many)).splitlines()
    assert (len(lines), lines[-1]) == (MAX_PROBLEMS + 1, "v1.yaml: and 30 more")


# A prompt file that is missing does not hide a misspelt key.
def test_missing_file_hides_nothing(tmp_path):
    declared = changed((*GENERATE, "prompt"), "gone.j2")
    declared["rolback_window"] = "5m"
    (tmp_path / "v1.yaml").write_text(yaml.safe_dump(declared))
    with pytest.raises(
        ModelSetError, match=r"rolback_window: unknown key.*\n.*prompt: cannot read"
    ) as caught:
        read_content("v1.yaml", tmp_path, tmp_path)
    assert caught.value.nearest == "rollback_window"


# A set that was taken by earlier rules is still read from the journal: review is for what comes anew.
def test_the_journal_is_not_reviewed():
    declared = changed((*CHAIN, "deadline"), "99999999999d")
    declared["engines"]["idle"] = {"kind": "fake", "deployment_config": {"num_replicas": 0}}
    declared["chains"]["agent"]["steps"][1]["generate"]["sampling"] = {"temprature": "hot"}
    taken = parse(declared, "v1.yaml", lambda name: name)
    assert type(taken).model_validate_json(taken.model_dump_json()) == taken
    assert len(list(review(taken))) == 4


def _paths(value, path=()):
    yield path
    for key, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _paths(item, (*path, key))


PATHS = [path for path in _paths(document(1)) if path]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(), st.binary(max_size=3),
    st.just(DROP), st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=8), st.none(), max_size=2),
    st.sampled_from(["99999999999d", "0s", "{{ steps", "{{ [1] * 10 ** 8 }}", "x" * 3000, 10**40, {1: {2: 3}}, {True: 1}]),
)  # fmt: skip


# A right set with anything anywhere is read or refused as a model set, within a second, and nothing else is raised.
@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=3))
def test_mutated(mutations):
    declared = copy.deepcopy(document(1))
    for path, value in mutations:
        node = declared
        for part in path[:-1]:
            node = node[part] if (isinstance(node, dict) and part in node) else {}
        if isinstance(node, dict):
            node.pop(path[-1], None) if value is DROP else node.update({path[-1]: value})
    begun = time.thread_time()
    try:
        reviewed(document_of(declared, "v1.yaml"), lambda name: name)
    except ModelSetError as refused:
        said = str(refused)
    else:
        said = "v1.yaml: "
    assert said.startswith("v1.yaml: ")
    assert time.thread_time() - begun < 1.0


_TEXTS = st.lists(
    st.sampled_from(
        ["name: a", "engines:", "  writer: &w {kind: fake}", "  b: *w", "<<: *w", "- ", "  - x", "[", "]", "{", "}", "? a",
         ": ", "!!binary x", "&a [*a]", "'", '"\\x00"', "\t", "---", "no: 1", "2026-01-01", "|\n text", "# c", "%YAML 9"]
    ),
    max_size=15,
)  # fmt: skip


# Whatever text is given, it is read as YAML or refused in one error, within a second.
@settings(max_examples=200)
@given(_TEXTS.map("\n".join) | _TEXTS.map(" ".join) | st.text(max_size=60))
def test_any_text(text):
    begun = time.thread_time()
    try:
        reviewed(read_yaml(text, "v1.yaml"), lambda name: name)
    except ModelSetError as refused:
        said = str(refused)
    else:
        said = "v1.yaml:"
    assert said.startswith("v1.yaml:")
    assert time.thread_time() - begun < 1.0
