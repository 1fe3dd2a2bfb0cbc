"""What is too large to be a prompt is refused before anything that takes long looks at it."""

import time

import pytest

from runtime.errors import InvalidRequest
from runtime.serve.hosts.vllm.prompt_limits import PromptLimits

LIMITS = PromptLimits(context_length=2048, longest_token=80)


def ask(**members):
    return {"messages": [{"role": "user", "content": "hi"}], **members}


def deep(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = {
    "a long text": ({"messages": [{"role": "user", "content": "a" * 3_900_000}]}, "messages"),
    "many messages": ({"messages": [{"role": "user", "content": "x"}] * 100_000}, "messages"),
    "many parts": ({"messages": [{"role": "user", "content": [{"type": "text"}] * 300_000}]}, "messages"),
    "many names": ({"messages": [{f"n{i}": 1 for i in range(300_000)}]}, "messages"),
    "nested": ({"messages": [{"role": "user", "content": deep(1000)}]}, "messages"),
    "long tools": (ask(tools=[{"function": {"name": "f", "description": "a" * 3_000_000}}]), "tools"),
    "a long document": (ask(documents=[{"text": "a" * 3_000_000}]), "documents"),
    "a long grammar": (ask(structured_outputs={"grammar": "root ::= 'a'\n" * 5000}), "structured_outputs"),
    "a schema of 2,000 properties": (
        ask(response_format={"schema": {f"p{i}": {"type": "string"} for i in range(2000)}}),
        "response_format",
    ),
}


# A text of more characters than the context's tokens could be, and what is not of any sent form, is refused
# by the member's name within milliseconds.
@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_fit(name):
    body, param = HOSTILE[name]
    begun = time.thread_time()
    with pytest.raises(InvalidRequest) as refused:
        LIMITS.check(body)
    assert time.thread_time() - begun < 0.1
    assert refused.value.param == param


# What might fit passes: only the tokenizer knows.
def test_what_might_fit():
    LIMITS.check({"messages": [{"role": "user", "content": "a" * (2048 * 80 - 20)}]})
    LIMITS.check(ask(response_format={"schema": {f"p{i}": {"type": "string"} for i in range(300)}}))
    LIMITS.check({"messages": None})
    LIMITS.check({})


# The refusal of a long text has OpenAI's code, and says how much there may be.
def test_the_code():
    with pytest.raises(InvalidRequest, match="163840 characters can be in the 2048 tokens") as refused:
        LIMITS.check(HOSTILE["a long text"][0])
    assert refused.value.code == "context_length_exceeded"
