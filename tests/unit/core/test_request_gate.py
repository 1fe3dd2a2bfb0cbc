"""What a chat request may say: its members by name, their form, what goes together; what refusing costs."""

import orjson
import pytest
from pydantic import TypeAdapter

from runtime.core.model_set.model_set import parse
from runtime.core.requests.chat_body import ChatBody
from runtime.core.requests.gate import IGNORED, read_chat
from runtime.core.requests.sampling import OPENABLE
from runtime.core.walk.chain import Chain
from runtime.core.walk.openings import check_chain_takes
from runtime.errors import InvalidRequest, ModelSetError, RequestError
from tests.request_shapes import ASKED, SHAPES, WEATHER
from tests.unit.world import document


def raw(**members):
    return orjson.dumps({"model": "agent", "messages": ASKED} | members)


def chain_of(sampling=None, prompt=None, **keys):
    step = {"id": "answer", "generate": {"engine": "writer", "sampling": sampling or {}, "prompt": prompt}}
    return Chain.model_validate(
        {"steps": [step], "answer": "answer", "samples": [{"messages": ASKED}], **keys},
    )


PLAIN = chain_of()


def taken(body, chain=PLAIN):
    """Read a request and check it against its chain."""
    asked = read_chat(body).ask
    check_chain_takes(chain, asked)
    return asked


def outcome(body, chain=PLAIN):
    """What is asked for, or why that is refused."""
    try:
        return taken(body, chain)
    except RequestError as refused:
        return refused


def refusal(body, chain=PLAIN):
    with pytest.raises(InvalidRequest) as refused:
        taken(body, chain)
    return refused.value


# Whatever is valid for OpenAI or vLLM passes, and what comes out names only what an engine is told.
@pytest.mark.parametrize("members", SHAPES.values(), ids=SHAPES)
def test_valid_shapes(members):
    asked = taken(raw(**members))
    assert set(asked.params) <= set(ChatBody.__annotations__) - {
        "model",
        "messages",
        "stream",
        "stream_options",
    }
    assert all(isinstance(message["content"], str) for message in asked.messages)


USER = {"role": "user", "content": "x"}


# What is wrong is refused with the member's name and one of OpenAI's codes.
@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": 7}, "model", "invalid_type"),
        ({"model": "m" * 300}, "model", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": {}}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["hello"]}, "messages.0", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "messages.1.role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages.0.content",
            "missing_required_parameter",
        ),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content", "invalid_type"),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages.0.content", "invalid_type"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages.0.content.0", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": ["x", {"type": "input_audio", "input_audio": {}}]}]},
            "messages.0.content.1.type",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
            "messages.0.content.0.text",
            "invalid_type",
        ),
        ({"messages": [USER | {"name": 7}]}, "messages.0.name", "invalid_type"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages.1.tool_calls.0.function.name",
            "invalid_type",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": ["x"]}]},
            "messages.1.tool_calls.0",
            "invalid_value",
        ),
        (
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "[" * 5000}}],
                    },
                ]
            },
            "messages.1.tool_calls.0.function.arguments",
            "invalid_value",
        ),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": list("abcde")}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop.1", "invalid_value"),
        ({"stop": ["a", 7]}, "stop.1", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logprobs": 3}, "logprobs", "invalid_type"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 3, "logprobs": False}, "top_logprobs", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": []}, "stream_options", "invalid_type"),
        (
            {"stream": True, "stream_options": {"include_usage": "x"}},
            "stream_options.include_usage",
            "invalid_type",
        ),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ({"tools": []}, "tools", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools.0.function", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "tools.0.function.name",
            "missing_required_parameter",
        ),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "sometimes", "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": [WEATHER]},
            "tool_choice.function.name",
            "invalid_value",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format", "invalid_value"),
        ({"response_format": {}}, "response_format", "invalid_value"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type", "unsupported_parameter"),
        ({"thinking_token_budget": -5}, "thinking_token_budget", "invalid_value"),
        ({"reasoning_effort": "much"}, "reasoning_effort", "invalid_value"),
        ({"min_tokens": 9, "max_tokens": 4}, "min_tokens", "invalid_value"),
        ({"min_tokens": 2000}, "min_tokens", "invalid_value"),
        ({"n": 2, "temperature": 0}, "n", "invalid_value"),
        ({"choices": 0}, "choices", "unknown_parameter"),
        ({"input": "x"}, "input", "unknown_parameter"),
        ({"interlock_hop": "x"}, "interlock_hop", "unknown_parameter"),
        ({"interlock_max_tokens": 9}, "interlock_max_tokens", "unknown_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"x" * 10**6: 1}, "x" * 64 + "…", "unknown_parameter"),
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params", "unsupported_parameter"),
        ({"return_prompt_text": True}, "return_prompt_text", "unsupported_parameter"),
        ({"return_token_ids": True}, "return_token_ids", "unsupported_parameter"),
        ({"prompt_logprobs": 0}, "prompt_logprobs", "unsupported_parameter"),
        ({"echo": True}, "echo", "unsupported_parameter"),
        ({"chat_template": "{{ 1 }}"}, "chat_template", "unsupported_parameter"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "unsupported_parameter"),
        ({"mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs", "unsupported_parameter"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs", "unsupported_parameter"),
        ({"structured_outputs": "x"}, "structured_outputs", "invalid_type"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "unsupported_parameter"),
        ({"priority": -1}, "priority", "unsupported_parameter"),
        ({"use_beam_search": True, "n": 2}, "use_beam_search", "unsupported_parameter"),
        (
            {"chat_template_kwargs": {"truncation": True}},
            "chat_template_kwargs.truncation",
            "unsupported_parameter",
        ),
        ({"chat_template_kwargs": {"x": [1]}}, "chat_template_kwargs.x", "invalid_type"),
    ],
)
def test_refused_by_name(members, param, code):
    refused = refusal(raw(**members))
    assert (refused.param, refused.code) == (param, code)
    assert str(refused).count("\n") == 0
    assert len(str(refused)) < 400
    for word in (
        "pydantic",
        "TypedDict",
        "valid dictionary",
        "instance of",
        "--",
        "_Function",
        "StreamOptions",
    ):
        assert word not in str(refused)


# Members that have no meaning here are ignored, whatever they are; so is what asks for nothing.
@pytest.mark.parametrize("value", [None, "x", 7, {"a": []}])
def test_ignored(value):
    assert read_chat(raw(**dict.fromkeys(IGNORED, value))).ask.params == {}
    nothing = {"echo": False, "kv_transfer_params": None, "add_generation_prompt": True, "priority": 0}
    assert (
        read_chat(raw(**nothing, use_beam_search=False, chat_template_kwargs={}, functions=None)).ask.params
        == {}
    )


OPENED = {
    "add_generation_prompt": False,
    "cache_salt": "salt",
    "continue_final_message": True,
    "documents": [{"title": "t", "text": "x"}],
    "length_penalty": 1.5,
    "logprob_token_ids": [1, 2],
    "priority": 3,
    "repetition_detection": {"max_pattern_size": 3, "min_count": 2},
    "return_tokens_as_token_ids": True,
    "structured_outputs": {"choice": ["a", "b"]},
    "use_beam_search": True,
    "vllm_xargs": {"a": [1, "b"]},
}


# What a set opens to a chain's clients passes there, and the refusal elsewhere says how to open it.
@pytest.mark.parametrize("name", OPENABLE)
def test_opened_by_the_set(name):
    beside = {
        "logprob_token_ids": {"logprobs": True},
        "continue_final_message": {"add_generation_prompt": False},
    }.get(name, {})
    members = {name: OPENED[name]} | beside
    opened = chain_of(allow=tuple({name, *beside} & set(OPENABLE)))
    assert taken(raw(**members), opened).params[name] == OPENED[name]
    assert "allow: [" in str(refusal(raw(**members)))
    assert "'agent'" in str(refusal(raw(**members)))


# Variables of the model's chat template that a set names may be set, to one value each; no others.
def test_template_variables():
    chain = chain_of({"chat_template_kwargs": {"tone": "dry", "enable_thinking": True}})
    chain = chain.model_copy(update={"template_variables": ("enable_thinking",)})
    body = raw(chat_template_kwargs={"enable_thinking": False})
    said = chain.answering.params_of(9, taken(body, chain).params)
    assert said["chat_template_kwargs"] == {"tone": "dry", "enable_thinking": False}
    assert "template_variables: [enable_thinking]" in str(refusal(body))


# A set cannot open what there is not, nor what steers the renderer instead of the template.
@pytest.mark.parametrize(
    ("keys", "key", "near"),
    [
        ({"allow": ["structured_output"]}, "chains.agent.allow[0]", "structured_outputs"),
        ({"allow": ["truncate_prompt_tokens"]}, "chains.agent.allow[0]", None),
        ({"template_variables": ["ok", "truncation"]}, "chains.agent.template_variables[1]", None),
        ({"template_variables": ["chat_template"]}, "chains.agent.template_variables[0]", None),
        ({"template_variables": ["a b"]}, "chains.agent.template_variables[0]", None),
    ],
)
def test_what_a_set_opens(keys, key, near):
    declared = document(1)
    declared["chains"]["agent"] |= keys
    with pytest.raises(ModelSetError) as refused:
        parse(declared, "set.yaml", lambda name: name)
    assert (refused.value.key, refused.value.nearest) == (key, near)


# Images pass where the chain takes them, as parts of OpenAI's form; elsewhere it is said how to open it.
def test_images():
    parts = [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
    ]
    body = raw(messages=[{"role": "user", "content": parts}])
    seen = taken(body, chain_of(allow=("images",))).messages[0]["content"]
    assert seen == [parts[0], {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert "allow: [images]" in str(refusal(body))


# The client's cap beats the set's under either name, and the engine gets one cap under one name.
@pytest.mark.parametrize("of_client", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("of_set", ["max_tokens", "max_completion_tokens"])
def test_one_cap(of_client, of_set):
    said = chain_of({of_set: 64}).answering.params_of(1024, read_chat(raw(**{of_client: 7})).ask.params)
    assert said == {"max_tokens": 7}
    assert chain_of({of_set: 64}).answering.params_of(1024, {}) == {"max_tokens": 64}


# A cap that is the chain's alone is marked as one that nobody asked for.
def test_a_cap_that_nobody_asked_for():
    assert PLAIN.answering.params_of(1024, {}) == {"interlock_max_tokens": 1024}


# What the set says is why a request is refused, and the refusal says so and what to send instead.
def test_the_set_is_why():
    greedy = chain_of({"temperature": 0.0})
    refused = refusal(raw(n=3), greedy)
    assert refused.param == "n"
    assert "the model set says for chain 'agent'" in str(refused)
    assert "send a temperature above 0" in str(refused)
    assert taken(raw(n=3, temperature=0.5), greedy).params["n"] == 3


# A client's cap below the set's least makes that least smaller: the client has not said it.
def test_the_sets_least_yields():
    assert chain_of({"min_tokens": 16}).answering.params_of(9, {"max_tokens": 4})["min_tokens"] == 4


# The form is told as JSON Schema, with what is needed, and the bounds.
def test_described():
    schema = TypeAdapter(ChatBody).json_schema()
    assert sorted(schema["required"]) == ["messages", "model"]
    assert schema["properties"]["temperature"]["anyOf"][0]["maximum"] == 2.0
    assert "$defs" in schema
