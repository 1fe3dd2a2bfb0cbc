"""The one form that a conversation's messages get."""

import pytest

from runtime.core.requests.gate import read_chat
from runtime.core.walk.walk import Walk
from tests.request_shapes import QUESTION
from tests.unit.core.test_request_gate import PLAIN, chain_of, raw


# A conversation has one system message, the chain's prompt first, and then what the client begins with.
@pytest.mark.parametrize(
    ("begin", "system"),
    [
        ([], "Prompt."),
        ([{"role": "system", "content": "Be kind."}], "Prompt.\n\nBe kind."),
        ([{"role": "developer", "content": "Be kind."}], "Prompt.\n\nBe kind."),
        (
            [
                {"role": "system", "content": [{"type": "text", "text": "a"}]},
                {"role": "developer", "content": ""},
                {"role": "system", "content": "b"},
            ],
            "Prompt.\n\na\n\nb",
        ),
    ],
)
def test_one_system_message(begin, system):
    asked = read_chat(raw(messages=[*begin, QUESTION])).ask
    (hop,) = Walk(chain_of(prompt="Prompt."), asked.messages, {}).ready()
    assert hop.body["messages"] == [{"role": "system", "content": system}, QUESTION]


# Without a prompt of the chain's the conversation goes to the engine as it is.
def test_no_prompt_no_merging():
    begin = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    asked = read_chat(raw(messages=[*begin, QUESTION])).ask
    (call,) = Walk(PLAIN, asked.messages, {}).ready()
    assert call.body["messages"] == [*begin, QUESTION]


# Parts are one text, an answer without content has an empty one, and what no template sees is gone.
def test_the_normal_form():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "more": 1}}
    echoed = {"role": "assistant", "content": None, "tool_calls": [call], "audio": None, "annotations": []}
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": None},
        "b",
        {"type": "refusal", "refusal": "c"},
    ]
    told = {"role": "user", "content": parts, "name": "ann", "extra": 1}
    asked = read_chat(raw(messages=[told, echoed])).ask
    normal = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert asked.messages == [
        {"role": "user", "content": "a\nb\nc", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": [normal]},
    ]
