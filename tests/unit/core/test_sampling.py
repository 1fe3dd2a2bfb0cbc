"""The one list of sampling members: which there are, of which form, within which bounds."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from runtime.core.requests.sampling import ClientMembers, faults_of

CLIENT = TypeAdapter(ClientMembers)


def told(members):
    return [(".".join(map(str, fault.key)), fault.reason, fault.nearest) for fault in faults_of(members)]


# What OpenAI's and vLLM's clients say every day is no fault.
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"temperature": 0, "top_p": 1, "n": 3, "seed": -1, "max_tokens": 64, "stop": "\n"},
        {
            "temperature": None,
            "stop": ["a", "b"],
            "logit_bias": {"50256": -100},
            "logprobs": True,
            "top_logprobs": 5,
        },
        {"response_format": {"type": "json_object"}, "min_tokens": 0, "top_k": -1},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {}, "strict": True},
            }
        },
        {"response_format": {"type": "structural_tag", "format": {"type": "any"}}},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        },
        {"tool_choice": "required", "reasoning_effort": "low", "min_p": 0.1},
    ],
)
def test_right(members):
    assert told(members) == []
    assert CLIENT.validate_python(members) == members


# A set may say what only an operator should; a client may not.
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("structured_outputs", {"choice": ["a"]}),
        ("chat_template_kwargs", {"a": 1}),
        ("vllm_xargs", {"a": [1, "b"]}),
        ("kv_transfer_params", {"a": 1}),
        ("use_beam_search", True),
    ],
)
def test_of_a_set_alone(member, value):
    assert told({member: value}) == []
    with pytest.raises(ValueError, match=member):
        CLIENT.validate_python({member: value})


# What is wrong is told with its place, in one line, and a misspelt member with the nearest right one.
@pytest.mark.parametrize(
    ("members", "key", "says", "near"),
    [
        ({"temprature": 1.0}, "temprature", "no such sampling member", "temperature"),
        ({"zzz": 1.0}, "zzz", "no such sampling member", None),
        ({"temperature": "hot"}, "temperature", "valid number", None),
        ({"temperature": True}, "temperature", "valid number", None),
        ({"temperature": float("nan")}, "temperature", "", None),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2", None),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1", None),
        ({"max_tokens": 10**30}, "max_tokens", "less than or equal to", None),
        ({"max_tokens": 1.5}, "max_tokens", "integer", None),
        ({"n": 129}, "n", "less than or equal to 128", None),
        ({"stop": ["a", ""]}, "stop.1", "at least 1 character", None),
        ({"stop": list("abcde")}, "stop", "at most 4", None),
        ({"stop": 5}, "stop", "string", None),
        ({"tools": []}, "tools", "at least 1 item", None),
        ({"tools": [{"type": "function"}]}, "tools.0.function", "missing", None),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "pattern", None),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "less than or equal to 100", None),
        ({"response_format": {"type": "yaml"}}, "response_format", "json_schema", None),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing", None),
        ({"reasoning_effort": "much"}, "reasoning_effort", "'low'", None),
    ],
)
def test_wrong(members, key, says, near):
    ((where, reason, meant),) = told(members)
    assert (where, meant) == (key, near)
    assert says in reason
    assert "\n" not in reason


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


# Whatever is given, it is judged; nothing else is raised, and at once.
@given(st.dictionaries(st.sampled_from(["temperature", "stop", "tools", "response_format", "n", "x"]), _JSON))
def test_anything(members):
    begun = time.thread_time()
    told(members)
    assert time.thread_time() - begun < 1.0
