"""What a model set may not be: each mistake is refused where it stands, before anything is loaded."""

import pytest
import yaml

from runtime.core.declaration.units import format_duration, parse_duration
from runtime.core.model_set.digest import Weights
from runtime.core.model_set.model_set import parse
from runtime.errors import ModelSetError
from tests.unit.world import document

DROP = object()
CHAIN = ("chains", "agent")
ROUTE = (*CHAIN, "steps", 0, "route")
GENERATE = (*CHAIN, "steps", 1, "generate")
WRITER = ("engines", "writer")
VLLM = {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}}}


def changed(path, value):
    """Return ``document(1)`` with ``value`` at ``path``, or without what is there."""
    changed = document(1)
    node = changed
    for part in path[:-1]:
        node = node[part]
    if value is DROP:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def refusal(document, source="v1.yaml", read=lambda name: name):
    with pytest.raises(ModelSetError) as caught:
        parse(document, source, read)
    return caught.value


# An unknown key, at whatever level, is refused with its path and the key that was probably meant.
@pytest.mark.parametrize(
    ("path", "key", "nearest"),
    [
        (("enginse",), "enginse", "engines"),
        (("rolback_window",), "rolback_window", "rollback_window"),
        (("warmup_timeout",), "warmup_timeout", "warmup"),
        ((*WRITER, "tokenz"), "engines.writer.tokenz", "tokens"),
        ((*CHAIN, "deadlin"), "chains.agent.deadlin", "deadline"),
        ((*CHAIN, "steps", 1, "generte"), "chains.agent.steps[1].generte", "generate"),
        ((*ROUTE, "choise"), "chains.agent.steps[0].route.choise", "choices"),
        ((*GENERATE, "promt"), "chains.agent.steps[1].generate.promt", "prompt"),
        ((*CHAIN, "samples", 0, "message"), "chains.agent.samples[0].message", "messages"),
        (("zzz",), "zzz", None),
    ],
)
def test_unknown_key(path, key, nearest):
    error = refusal(changed(path, {}))
    assert (error.source, error.key, error.nearest) == ("v1.yaml", key, nearest)
    assert str(error).startswith(f"v1.yaml: {key}: unknown key; valid here: ")
    assert (f"did you mean {nearest!r}?" in str(error)) == (nearest is not None)


# A prompt length that an engine cannot hold, with a token of an answer, is refused where it stands; one
# that it can hold is not, and neither is any where nothing is known.
@pytest.mark.parametrize(
    ("engine", "limit"),
    [
        ({"kind": "fake", "context_length": 100}, 100),
        ({"kind": "vllm", "llm_config": {**VLLM["llm_config"], "engine_kwargs": {"max_model_len": 64}}}, 64),
        (VLLM, None),
    ],
    ids=["fake", "vllm", "unknown"],
)
def test_prompt_length_that_does_not_fit(engine, limit):
    declared = changed(WRITER, engine)
    declared["engines"]["router"] = {"kind": "transformers", "model": "m", "max_length": 8}
    longest = limit - 1 if limit else 10**6
    declared["warmup"] = {"prompt_tokens": [16, longest]}
    assert parse(declared, "v1.yaml", lambda name: name).warmup.prompt_tokens == (16, longest)
    if limit:
        declared["warmup"] = {"prompt_tokens": [16, limit]}
        error = refusal(declared)
        assert error.key == "warmup.prompt_tokens[1]"
        holds = f"engine 'writer' holds {limit} tokens, one of which is the answer"
        assert error.reason == f"{holds}; write less than {limit}"


# An unknown key inside an engine of a real kind is refused there too.
@pytest.mark.parametrize(
    ("engine", "key", "nearest"),
    [
        ({**VLLM, "load_timout": "5s"}, "load_timout", "load_timeout"),
        (
            {"kind": "vllm", "llm_config": {**VLLM["llm_config"], "engine_kwarg": {}}},
            "llm_config.engine_kwarg",
            "engine_kwargs",
        ),
        ({"kind": "transformers", "modle": "m"}, "modle", "model"),
        ({"kind": "vlm"}, "kind", "vllm"),
    ],
)
def test_unknown_key_of_an_engine(engine, key, nearest):
    error = refusal(changed(WRITER, engine))
    assert (error.key, error.nearest) == (f"engines.writer.{key}", nearest)


# What the parts of a set say about each other holds, or the reference that dangles is named.
@pytest.mark.parametrize(
    ("path", "value", "key", "says", "nearest"),
    [
        ((*GENERATE, "engine"), "writr", "steps[1].generate.engine", "no engine is called 'writr'", "writer"),
        ((*ROUTE, "engine"), "elsewhere", "steps[0].route.engine", "no engine is called", None),
        ((*CHAIN, "answer"), "anwser", "answer", "no step is called 'anwser'", "answer"),
        ((*CHAIN, "answer"), "triage", "answer", "the answer is the last step", None),
        ((*CHAIN, "steps", 1, "id"), "triage", "steps[1].id", "is the id of an earlier step", None),
        ((*CHAIN, "steps", 1, "generate"), DROP, "steps[1]", "exactly one of: route, generate", None),
        ((*CHAIN, "steps", 0, "generate"), {"engine": "writer"}, "steps[0]", "exactly one of", None),
    ],
)
def test_reference(path, value, key, says, nearest):
    error = refusal(changed(path, value))
    assert (error.key, error.nearest) == (f"chains.agent.{key}", nearest)
    assert says in error.reason


# An engine gets only the steps that its kind can do.
@pytest.mark.parametrize(
    ("name", "engine", "key", "says"),
    [
        ("router", VLLM, "steps[0].route.engine", "engine 'router' of kind vllm cannot route"),
        (
            "writer",
            {"kind": "transformers", "model": "m"},
            "steps[1].generate.engine",
            "engine 'writer' of kind transformers cannot generate",
        ),
    ],
)
def test_wrong_kind_of_engine(name, engine, key, says):
    error = refusal(changed(("engines", name), engine))
    assert (error.key, error.reason) == (f"chains.agent.{key}", says)


# A value of the wrong form is refused where it stands.
@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("name",), "Bad Name", "name"),
        (("name",), DROP, "name"),
        (("engines",), {}, "engines"),
        (("chains",), DROP, "chains"),
        (("engines", "Bad Name"), {"kind": "fake"}, "engines.Bad Name"),
        (("chains", "-x"), document(1)["chains"]["agent"], "chains.-x"),
        ((*CHAIN, "steps", 0, "id"), "tri-age", "chains.agent.steps[0].id"),
        ((*ROUTE, "choices"), {"A b": ["x"], "c": ["y"]}, "chains.agent.steps[0].route.choices.A b"),
        ((*ROUTE, "choices"), {"a": ["x"]}, "chains.agent.steps[0].route.choices"),
        ((*ROUTE, "choices", "a"), [], "chains.agent.steps[0].route.choices.a"),
        ((*CHAIN, "steps"), [], "chains.agent.steps"),
        ((*CHAIN, "samples"), [], "chains.agent.samples"),
        ((*GENERATE, "sampling"), {"stream": True}, "chains.agent.steps[1].generate.sampling"),
        ((*CHAIN, "samples", 0, "params"), {"messages": []}, "chains.agent.samples[0].params"),
        (("warmup",), {"at_onse": [4]}, "warmup.at_onse"),
        (("warmup",), {"at_once": [4, 0]}, "warmup.at_once[1]"),
        (("warmup",), {"prompt_tokens": [0]}, "warmup.prompt_tokens[0]"),
        (("warmup",), {"timeout": 300}, "warmup.timeout"),
        ((*WRITER, "kind"), DROP, "engines.writer.kind"),
        ((*WRITER, "tokens"), 0, "engines.writer.tokens"),
        (WRITER, None, "engines.writer"),
        (WRITER, {"kind": "vllm"}, "engines.writer.llm_config"),
        (
            WRITER,
            {"kind": "vllm", "llm_config": {"model_loading_config": {}}},
            "engines.writer.llm_config.model_loading_config",
        ),
    ],
)
def test_wrong_form(path, value, key):
    assert refusal(changed(path, value)).key == key


# A document that is no mapping is refused as a whole.
@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_not_a_mapping(value):
    error = refusal(value)
    assert (error.key, error.reason) == ("", "a model set is a mapping with name, engines and chains")


BUDGET = (*CHAIN, "latency_budget")


# The shares of a latency budget are durations, or milliseconds; together they may be the whole deadline.
def test_latency_budget():
    declared = changed(BUDGET, {"triage": 200, "answer": "29.8s"})
    chain = parse(declared, "v1.yaml", lambda name: name).chains["agent"]
    assert chain.latency_budget == {"triage": 0.2, "answer": 29.8}
    assert parse(changed(BUDGET, {}), "v1.yaml", lambda name: name).chains["agent"].latency_budget == {}
    assert type(chain).model_validate(chain.model_dump(mode="json")) == chain


# Shares whose sum is the deadline but for the rounding of floats fit.
def test_shares_that_just_fit():
    declared = changed((*CHAIN, "deadline"), "300ms")
    declared["chains"]["agent"]["latency_budget"] = {"triage": "100ms", "answer": "200ms"}
    assert parse(declared, "v1.yaml", lambda name: name)


# A share of a step that is not there, of no time, or over the deadline with the others is refused.
@pytest.mark.parametrize(
    ("shares", "key", "says", "nearest"),
    [
        ({"triag": "1s"}, ".triag", "no step is called 'triag'", "triage"),
        ({"Elsewhere": 5}, ".Elsewhere", "no step is called 'Elsewhere'", None),
        ({"triage": "1s", "answer": "29001ms"}, "", "are 30.001 s together, over the deadline of 30 s", None),
        ({"triage": 0}, ".triage", "greater than 0", None),
        ({"triage": -1}, ".triage", "greater than 0", None),
        ({"triage": True}, ".triage", "is not a duration", None),
        ({"triage": "1"}, ".triage", "is not a duration", None),
        ({"triage": float("nan")}, ".triage", "", None),
    ],
)
def test_wrong_latency_budget(shares, key, says, nearest):
    error = refusal(changed(BUDGET, shares))
    assert (error.key, error.nearest) == (f"chains.agent.latency_budget{key}", nearest)
    assert says in error.reason


# A duration carries a unit.
@pytest.mark.parametrize("value", [30, 1.5, "30", "20 parsecs", "-1s", "", None, True, "1h30m"])
def test_bad_duration(value):
    error = refusal(changed((*CHAIN, "deadline"), value))
    assert error.key == "chains.agent.deadline"
    assert error.reason == f"{value!r} is not a duration; write a number with a unit: 500ms, 20s, 10m, 2h, 1d"


# A duration means what it says, and its canonical text is read back to exactly the same.
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("1.5s", 1.5), (" 10 m ", 600), ("2h", 7200), ("1d", 86400), ("0s", 0)],
)
def test_duration(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


# A prompt that could fail on a request is refused when the set is read.
@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("{{ input", "line 1: unexpected end of template"),
        ("\n{% if input %}", "line 2: Unexpected end of template"),
        ("{{ inptu }}", "unknown variable 'inptu'; a prompt sees input, messages, steps"),
        ("\n\n{{ steps.nope.text }}", "line 3: 'nope' is not an earlier step of this chain"),
        ("{{ steps.answer.text }}", "'answer' is not an earlier step"),
        ("{{ steps['answer'].text }}", "'answer' is not an earlier step"),
        ("\n{{ input | shout }}", "line 2: No filter named 'shout'"),
        ("{{ input is shouted }}", "line 1: No test named 'shouted'"),
        ("{% include 'other.j2' %}", "line 1: a prompt cannot include"),
        ("{% extends 'other.j2' %}", "line 1: a prompt cannot include"),
        ("{% from 'other.j2' import x %}", "line 1: a prompt cannot include"),
    ],
)
def test_bad_template(prompt, says):
    error = refusal(changed((*GENERATE, "prompt"), prompt))
    assert error.key == "chains.agent.steps[1].generate.prompt"
    assert error.reason.startswith("bad template: ")
    assert says in error.reason


# A prompt may use what the module says it sees, in both of Jinja's notations.
@pytest.mark.parametrize(
    "prompt",
    [
        "{{ input }} {{ messages[0].content }} {{ steps.triage.choice }}",
        "{% for m in messages %}{{ m.role | upper }}{% endfor %}{{ steps['triage'].choice }}",
        "plain text with a } and a { brace",
    ],
)
def test_good_template(prompt):
    parsed = parse(changed((*GENERATE, "prompt"), prompt), "v1.yaml", lambda name: name)
    assert parsed.chains["agent"].steps[1].generate.prompt == prompt


# The unknown key is what is told when a document has several faults: it explains most others.
def test_unknown_key_first():
    faulty = changed((*CHAIN, "deadline"), 30)
    faulty["chains"]["agent"]["sampels"] = faulty["chains"]["agent"].pop("samples")
    assert refusal(faulty).key == "chains.agent.sampels"


# A model set survives being written out and read again.
def test_round_trip():
    parsed = parse(document(1), "v1.yaml", lambda name: name)
    again = parse(yaml.safe_load(yaml.safe_dump(parsed.model_dump(mode="json"))), "again", lambda name: name)
    assert again == parsed


# An error keeps its parts when it crosses processes by pickle.
def test_error_pickles():
    error = ModelSetError("a.yaml", "engines.x", "bad", "y")
    kind, parts = error.__reduce__()
    assert str(kind(*parts)) == str(error) == "a.yaml: engines.x: bad; did you mean 'y'?"


# Weights are plain values.
def test_weights_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Weights(location="a", digest="b").location = "c"
