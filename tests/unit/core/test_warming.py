"""What a warm-up runs, decided before any call is made: rounds, lengths, heads, and what they can take."""

import itertools

import pytest

from runtime.core.model_set.warming import MAX_COMBINATIONS, combinations, filler, rounds
from runtime.core.model_set.warmup_tokens import warmup_bound
from runtime.core.walk.call import Choice
from runtime.core.walk.chain import Chain
from runtime.testing.model_sets import content_of
from tests.unit.world import content, document

BLOCK = 16
"""Tokens of the prefix cache's smallest usual block."""


def routes(count, choices):
    """A chain of ``count`` routes with ``choices`` each, and an answer."""
    options = {f"c{n}": [f"example {n}"] for n in range(choices)}
    steps = [{"id": f"r{n}", "route": {"engine": "router", "choices": options}} for n in range(count)]
    steps.append({"id": "answer", "generate": {"engine": "writer", "prompt": "{{ input }}"}})
    samples = [{"messages": [{"role": "user", "content": "my bill"}]}]
    return {"steps": steps, "answer": "answer", "samples": samples}


def chosen(chain):
    """The choices of each combination, in the order of the routes."""
    declared = Chain.model_validate(chain)
    return [tuple(result.choice for result in given.values()) for given in combinations(declared)]


# Samples come first, then lengths, then batches from small to large, probes, and the prompts' heads last.
def test_order_of_the_rounds():
    wanted = content(1, warmup={"at_once": [8, 2, 8], "prompt_tokens": [64, 32]})
    assert [(each.label, each.at_once, len(each.runs)) for each in rounds(wanted)] == [
        ("samples", 0, 1),
        ("prompt lengths", 0, 2),
        ("2 runs together, 2 of each sample", 2, 1),
        ("8 runs together, 8 of each sample", 8, 1),
        ("probes", 0, 1),
        ("probes", 0, 1),
        ("prompt heads", 0, 3),
    ]


# Each generating engine reads each length once, the short ones first; encoders and equal engines do not.
def test_lengths():
    declared = document(1, warmup={"prompt_tokens": [300, 20]})
    declared["engines"]["same"] = dict(declared["engines"]["writer"])
    declared["chains"]["other"] = routes(0, 0)
    declared["chains"]["other"]["steps"][0]["generate"]["engine"] = "same"
    lengths = rounds(content_of(declared))[1].runs
    bodies = [(hop.engine, run.body(hop)) for run in lengths for hop in run.walk().ready()]
    assert len({engine for engine, _ in bodies}) == 1
    assert [len(body["messages"][0]["content"].split()) for _, body in bodies] == [20, 300]
    assert [(body["max_tokens"], body["truncate_prompt_tokens"]) for _, body in bodies] == [(1, 20), (1, 300)]


# A filler has as many words as it is to have tokens, is the same in every process, and shares no block
# with a filler of another length.
def test_filler():
    texts = {tokens: filler(tokens).split() for tokens in range(BLOCK, 400)}
    assert all(len(words) == tokens for tokens, words in texts.items())
    assert filler(6) == "in for for that and for"
    assert len({tuple(words[:BLOCK]) for words in texts.values()}) == len(texts)


# A chain's prompts are made with every combination of its routes' choices, up to a bound; if there are
# more, no single choice is left out.
@pytest.mark.parametrize(("count", "choices", "made"), [(0, 2, 1), (1, 3, 3), (2, 4, 16), (5, 3, 16)])
def test_combinations(count, choices, made):
    given = chosen(routes(count, choices))
    every = set(itertools.product([f"c{n}" for n in range(choices)], repeat=count))
    assert len(given) == len(set(given)) == min(len(every), MAX_COMBINATIONS) == made
    assert set(given) <= every
    assert {(place, name) for one in given for place, name in enumerate(one)} == {
        (place, name) for one in every for place, name in enumerate(one)
    }


# What the bound leaves out is said.
@pytest.mark.parametrize(
    ("count", "says"), [(2, "prompt heads"), (3, "prompt heads, 18 of 29 combinations of choices")]
)
def test_combinations_left_out_are_said(count, says):
    declared = document(1)
    declared["chains"]["other"] = routes(count, 3)
    assert rounds(content_of(declared))[-1].label == says


# A head is made without asking the route: the prompt is rendered as if it had chosen, for one token.
def test_heads_of_choices_no_sample_leads_to():
    declared = document(1)
    steps = declared["chains"]["agent"]["steps"]
    steps[1]["generate"]["prompt"] = "{{ steps.triage.choice }} {{ steps.triage.scores.a }}"
    steps[1]["generate"]["sampling"] = {"max_completion_tokens": 90, "min_tokens": 5, "n": 2}
    heads = rounds(content_of(declared))[-1].runs[:2]
    hops = [(run, run.walk().ready()[0]) for run in heads]
    assert [hop.step for _, hop in hops] == ["answer", "answer"]
    assert [hop.body["messages"][0]["content"] for _, hop in hops] == ["a 1.0", "b 0.0"]
    body = hops[0][0].body(hops[0][1])
    limits = {key: body.get(key) for key in ("max_tokens", "max_completion_tokens", "min_tokens", "n")}
    assert limits == {"max_tokens": 1, "max_completion_tokens": None, "min_tokens": 0, "n": 1}


# A sample reaches the engine in the form that the same messages of a client do.
def test_samples_have_the_normal_form():
    declared = document(1)
    declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "{{ messages[0].content }}!"
    parts = [{"type": "text", "text": "my"}, {"type": "text", "text": "bill"}]
    begin = {"role": "system", "content": "Be brief."}
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}, begin]
    declared["chains"]["agent"]["samples"] = [{"messages": messages}]
    run = rounds(content_of(declared))[0].runs[0].walk()
    run.record(run.ready()[0], Choice("a", {}))
    assert run.ready()[0].body["messages"] == [
        {"role": "system", "content": "my\nbill!"},
        {"role": "user", "content": "my\nbill"},
        {"role": "assistant", "content": ""},
        begin,
    ]


# What clients send beside messages is sent in every round, to the step that answers.
def test_params_are_sent():
    declared = document(1)
    declared["chains"]["agent"]["samples"][0]["params"] = {"response_format": {"type": "json_object"}}
    for each in rounds(content_of(declared)):
        for run in each.runs:
            walk = run.walk()
            if not run.given:
                walk.record(walk.ready()[0], Choice("a", {}))
            assert run.body(walk.ready()[0])["response_format"] == {"type": "json_object"}


# An answer is bounded by the limit that counts, times the choices, and by what the engine can say.
@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        ({}, 20),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 500}, 20),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_tokens": "many"}, 20),
    ],
)
def test_bound_of_answers(sampling, tokens):
    def batch(longest):
        """Return the bound of ten runs at once on an engine that says ``longest`` tokens at most."""
        bounds = []
        for at_once in ([10], []):
            declared = document(1, writer={"tokens": longest}, warmup={"at_once": at_once})
            declared["chains"]["agent"]["steps"][1]["generate"]["sampling"] = sampling
            bounds.append(warmup_bound(content_of(declared)))
        return bounds[0] - bounds[1]

    assert batch(20) - batch(1) == 10 * (tokens - sampling.get("n", 1))
