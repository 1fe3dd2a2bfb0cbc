"""What vLLM refuses is told in the API's words, with the member that it is about."""

from typing import Literal

import pytest
from jinja2 import TemplateError
from pydantic import BaseModel

from runtime.errors import EngineUnavailable, InvalidRequest, Overloaded
from runtime.serve.hosts.vllm.chat_request import ChatRequests
from runtime.serve.hosts.vllm.prompt_limits import PromptLimits
from runtime.serve.hosts.vllm.refusals import refused_by, refused_with


class VLLMClientError(Exception):
    pass


class VLLMValidationError(VLLMClientError):
    def __init__(self, message, parameter=None, value=None):
        super().__init__(message)
        self.parameter, self.value = parameter, value


class GracefulHTTPError(Exception):
    pass


class GenerationError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


class EngineDeadError(Exception):
    pass


ASK = {"messages": [{"role": "user", "content": "hi"}]}


# Each kind of exception that vLLM, or a library, has for a wrong request is the client's, with its member.
@pytest.mark.parametrize(
    ("error", "members", "param", "text"),
    [
        (
            VLLMValidationError("must be so", "top_logprobs", 3),
            {},
            "top_logprobs",
            "top_logprobs: must be so",
        ),
        (VLLMValidationError("bad (parameter=n, value=3)", None), {"n": 3}, "messages", "messages: bad"),
        (VLLMValidationError("too many", "logprobs"), {"top_logprobs": 99}, "top_logprobs", "too many"),
        (VLLMClientError("n must be 1. Set VLLM_MAX_N to change it."), {"n": 3}, "n", "n must be 1."),
        (VLLMClientError("Grammar error: bad"), {"response_format": {}}, "response_format", "Grammar error"),
        (VLLMClientError("seed is odd"), {"seed": 1}, "seed", "seed is odd"),
        (TemplateError("roles must alternate"), {}, "messages", "roles must alternate"),
        (ValueError("min_tokens must be small"), {"min_tokens": 9}, "min_tokens", "min_tokens"),
        (KeyError("function"), {"tools": [{}]}, "messages", "function is missing"),
        (AttributeError("'str' object has no attribute 'get'"), {}, "messages", "has not the form"),
        (RecursionError("maximum depth"), {}, "messages", "maximum depth"),
        (OverflowError("int too large"), {}, "messages", "int too large"),
        (
            GenerationError("Internal"),
            {"structured_outputs": {"regex": "("}},
            "structured_outputs",
            "no answer of this form",
        ),
        (
            GenerationError("Internal"),
            {"response_format": {"type": "x"}},
            "response_format",
            "no answer of this form",
        ),
    ],
)
def test_what_is_the_requests_fault(error, members, param, text):
    refused = refused_by(error, {**ASK, **members})
    assert isinstance(refused, InvalidRequest)
    assert refused.param == param
    assert text in str(refused)
    assert "parameter=" not in str(refused)


# An error that vLLM has wrapped into one of generating is known by its cause.
def test_a_wrapped_error():
    error = EngineGenerateError()
    error.__cause__ = ValueError("seed is odd")
    refused = refused_by(error, {**ASK, "seed": 1})
    assert (type(refused), refused.param) == (InvalidRequest, "seed")


# What is no fault of the request is the engine's; and so is whatever comes once it has generated.
@pytest.mark.parametrize(
    ("error", "generated", "kind"),
    [
        (EngineDeadError("gone"), 0, EngineUnavailable),
        (GenerationError("Internal"), 0, EngineUnavailable),
        (RuntimeError("CUDA"), 0, EngineUnavailable),
        (TypeError("a bug"), 1, EngineUnavailable),
        (GracefulHTTPError("busy"), 0, Overloaded),
    ],
)
def test_what_is_the_engines_fault(error, generated, kind):
    assert type(refused_by(error, ASK, generated=generated)) is kind


# What vLLM says in the words of its command line is said in the set's; addresses and dumps are not told.
@pytest.mark.parametrize(
    ("said", "members", "param", "told"),
    [
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            {"tools": [1], "tool_choice": "auto"},
            "tool_choice",
            "no tools: the model set gives this step's engine no tool_call_parser (in its engine_kwargs)",
        ),
        (
            "thinking_token_budget is set but not configured. Please set --reasoning-parser",
            {"thinking_token_budget": 4},
            "thinking_token_budget",
            "no thoughts: the model set gives this step's engine no reasoning_parser (in its engine_kwargs)",
        ),
        (
            "seed needs --some-flag",
            {"seed": 1},
            "seed",
            "seed: the engine of this step is not configured for it by the model set",
        ),
        ("seed " + "x" * 9999, {"seed": 1}, "seed", "seed " + "x" * 495 + " ..."),
        (
            "8 validation errors for ValidatorIterator\n0.x at 0x7f",
            {},
            "messages",
            "messages are not of the form",
        ),
    ],
)
def test_words(said, members, param, told):
    refused = refused_with(said, None, {**ASK, **members})
    assert refused.param == param
    assert str(refused).startswith(told)
    assert "\n" not in str(refused)


# A prompt that is too long has OpenAI's code and the messages for its member.
def test_too_long():
    said = "This model's maximum context length is 2048 tokens. However, you requested 1 output tokens"
    refused = refused_with(said, "input_tokens", ASK)
    assert (refused.param, refused.code) == ("messages", "context_length_exceeded")


# -- the form of a body -------------------------------------------------------------------------------


class Format(BaseModel):
    type: Literal["text", "json_object"]


class Form(BaseModel):
    model: str
    messages: list[dict[str, str]]
    stop: str | list[str] = []
    n: int | None = None
    logprobs: bool | None = None
    temperature: float | None = None
    response_format: Format | None = None
    stream: bool = False
    stream_options: dict | None = None
    structured_outputs: dict | None = None


class Strict(Form):
    """Trips over what is of the wrong form before pydantic sees it."""

    def __init__(self, **members):
        if "structured_outputs" in members:
            members["structured_outputs"].get("json")
        if not isinstance(members["messages"], list) or "tool_calls" in members["messages"][0]:
            list(members["messages"][0]["tool_calls"])
        super().__init__(**members)


REQUESTS = ChatRequests(Strict, Strict, "m", PromptLimits(2048, 80), ())


# A body of the wrong form is refused in one sentence with the place, whatever pydantic and vLLM say of it.
@pytest.mark.parametrize(
    ("members", "param", "text"),
    [
        ({"n": "x"}, "n", "n must be a whole number"),
        ({"logprobs": 5}, "logprobs", "logprobs must be true or false"),
        ({"temperature": "hot"}, "temperature", "temperature must be a number"),
        ({"response_format": "json"}, "response_format", "response_format must be an object"),
        (
            {"response_format": {"type": "x"}},
            "response_format",
            "response_format.type must be 'text' or 'json",
        ),
        ({"response_format": {}}, "response_format", "response_format.type is missing"),
        ({"stop": [1]}, "stop", "stop[0] must be a text"),
        ({"structured_outputs": "x"}, "structured_outputs", "structured_outputs: it has not the form"),
        ({"messages": "x"}, "messages", "messages"),
        ({"messages": [5]}, "messages", "messages"),
        ({"messages": [{"content": "x", "a": 1}]}, "messages", "messages[0].role is missing"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages",
            "messages[0].content must be a text, or",
        ),
        (
            {"messages": [{"role": "user", "tool_calls": 5}]},
            "messages",
            "messages[0].tool_calls must be a list",
        ),
        ({"messages": []}, "messages", "messages must not be missing or empty"),
    ],
)
def test_a_wrong_form(members, param, text):
    with pytest.raises(InvalidRequest) as refused:
        REQUESTS.of({**ASK, **members})
    assert refused.value.param == param
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


# A request says the model and, for a stream, that usage is to be told; and what else the body may say.
def test_a_request():
    made = REQUESTS.of({**ASK, "stream": True, "n": 2, "stream_options": 5, "interlock_hop": ["h"]})
    assert (made.model, made.n, made.stream_options["continuous_usage_stats"]) == ("m", 2, True)
