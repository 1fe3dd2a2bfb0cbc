"""The members of answers: what OpenAI's always have, whatever an engine leaves null or out."""

import pytest

from runtime.core.metering.usage import Usage
from runtime.engines.chunks import pack, unpack

MESSAGE = {
    "role": "assistant",
    "content": "hello",
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
    "reasoning": None,
}


def packed(choice):
    answer = {"id": "x", "choices": [choice], "usage": None, "prompt_logprobs": None, "service_tier": None}
    members = unpack(pack(answer, Usage(), 0.0))
    assert set(members) == {"choices"}
    return members["choices"][0]


# A message has content and refusal, null or not, and annotations; of the rest, what is not null.
@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({}, {"role": "assistant", "content": "hello", "refusal": None, "annotations": []}),
        (
            {"content": None, "tool_calls": [{"id": "c"}]},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "annotations": [],
                "tool_calls": [{"id": "c"}],
            },
        ),
        (
            {"reasoning": "why", "refusal": "no"},
            {
                "role": "assistant",
                "content": "hello",
                "refusal": "no",
                "annotations": [],
                "reasoning": "why",
            },
        ),
    ],
)
def test_message(says, told):
    choice = packed({"index": 0, "message": MESSAGE | says, "logprobs": None, "stop_reason": None})
    assert choice == {"index": 0, "message": told, "logprobs": None, "finish_reason": None}


# Log probabilities have a member for a refusal's, too.
def test_logprobs():
    choice = packed({"index": 0, "message": MESSAGE, "logprobs": {"content": []}, "finish_reason": "stop"})
    assert choice["logprobs"] == {"content": [], "refusal": None}
    assert choice["finish_reason"] == "stop"


# A part of a stream has no null in its delta; whether it is the last is always said.
def test_delta():
    choice = packed({"index": 1, "delta": {"content": "x", "reasoning": None, "tool_calls": None}})
    assert choice == {"index": 1, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
