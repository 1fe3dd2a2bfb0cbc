"""Members of chat requests that steer, trip or load an engine, by name."""

from __future__ import annotations

from typing import Any

ASKED = [{"role": "user", "content": "my bill"}]
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def _user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def _schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _kwargs(**variables: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": variables}


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


STEERING: dict[str, dict[str, Any]] = {
    "truncation": _kwargs(truncation=True, max_length=1),
    "tensors": _kwargs(return_tensors="np"),
    "padding": _kwargs(padding="max_length", max_length=200_000_000),
    "a template": _kwargs(chat_template=_LOOPS),
    "a template beside": {"chat_template": _LOOPS},
    "token ids": {"kv_transfer_params": {"prompt_token_ids": [1, 2, 3]}},
    "a short prompt": {"truncate_prompt_tokens": 5},
    "the prompt's text": {"return_prompt_text": True, "return_token_ids": True},
    "the prompt's log probabilities": {"prompt_logprobs": 5},
    "an echo": {"echo": True},
    "a priority": {"priority": -9},
    "a salt": {"cache_salt": "x"},
    "extra arguments": {"vllm_xargs": {"a": 1}},
    "a document": {"documents": [{"title": "x", "text": "word " * 400}]},
    "an internal member": {"choices": 0, "interlock_hop": ["h"], "interlock_within_s": 1e9},
    "a picture": _user([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]),
}
"""What would read, replace, cut or jump."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no tools": ({"tools": []}, "tools"),
    "top_logprobs alone": ({"top_logprobs": 3}, "top_logprobs"),
    "tool_choice alone": ({"tool_choice": "auto"}, "tool_choice"),
    "tools without a parser": ({"tools": [_TOOL], "tool_choice": "auto"}, "tool_choice"),
    "a tool that there is not": (
        {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
    ),
    "a format without schema": ({"response_format": {"type": "json_schema"}}, "response_format"),
    "a format that is a text": ({"response_format": "json"}, "response_format"),
    "a structural tag": ({"response_format": {"type": "structural_tag", "structures": 3}}, "response_format"),
    "a schema of no type": (_schema({"type": "nope"}), "response_format"),
    "a schema that refers to nothing": (_schema({"$ref": "#/nope"}), "response_format"),
    "a schema that nothing follows": (_schema({"enum": []}), "response_format"),
    "a schema of 2,000 properties": (
        _schema({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2000)}}),
        "response_format",
    ),
    "a pattern": (_schema({"type": "string", "pattern": "("}), "response_format"),
    "outputs that are a text": ({"structured_outputs": "x"}, "structured_outputs"),
    "a regular expression": ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
    "a rule that there is not": ({"structured_outputs": {"grammar": "root ::= foo"}}, "structured_outputs"),
    "no choice": ({"structured_outputs": {"choice": []}}, "structured_outputs"),
    "a budget of thoughts below none": ({"thinking_token_budget": -5}, "thinking_token_budget"),
    "a budget of thoughts": ({"thinking_token_budget": 5}, "thinking_token_budget"),
    "five stops": ({"stop": ["a"] * 5}, "stop"),
    "a stop that is a number": ({"stop": [1]}, "stop"),
    "a part of no type": (_user([{"type": "bogus"}]), "messages"),
    "a content that is a number": (_user(5), "messages"),
    "calls that are a number": ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages"),
    "no messages": ({"messages": []}, "messages"),
    "half a character": (_user("\ud800"), "messages"),
    "megabytes": (_user("a " * 1_000_000), "messages"),
    "many messages": ({"messages": ASKED * 50_000}, "messages"),
    "nested messages": (_user(_deep(200)), "messages"),
    "a long text": (_user("a b " * 30_000), "messages"),
    "more than the context": ({"max_tokens": 99_999}, "max_tokens"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "a cold temperature": ({"temperature": -1}, "temperature"),
    "a word for a temperature": ({"temperature": "hot"}, "temperature"),
    "too likely": ({"top_p": 2}, "top_p"),
    "no choices": ({"n": 0}, "n"),
    "many choices": ({"n": 100_000, "temperature": 1.0}, "n"),
    "choices of one mind": ({"n": 3, "temperature": 0}, "n"),
    "a bias of no token": ({"logit_bias": {"999999": 1}}, "logit_bias"),
    "a bias of a word": ({"logit_bias": {"a": 1}}, "logit_bias"),
    "a stop of no token": ({"stop_token_ids": [10_000_000]}, "stop_token_ids"),
    "only tokens that there are not": ({"allowed_token_ids": [10_000_000]}, "allowed_token_ids"),
    "no allowed tokens": ({"allowed_token_ids": []}, "allowed_token_ids"),
    "an empty word": ({"bad_words": [""]}, "bad_words"),
    "at least more than at most": ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
    "a thousand log probabilities": ({"logprobs": True, "top_logprobs": 1000}, "top_logprobs"),
    "a large seed": ({"seed": 2**70}, "seed"),
    "no penalty": ({"repetition_penalty": 0}, "repetition_penalty"),
    "many beams": ({"n": 64, "use_beam_search": True}, "n"),
}
"""What an engine refuses, and the member that it names."""

GRAMMARS: dict[str, dict[str, Any]] = {
    "outputs of nothing": {"structured_outputs": {}},
    "a rule twice": {"structured_outputs": {"grammar": 'root ::= "a"\nroot ::= "b"'}},
    "another rule twice": {"structured_outputs": {"grammar": 'root ::= a\na ::= "x"\na ::= "y"'}},
    "a rule of itself": {"structured_outputs": {"grammar": 'root ::= root "a" | "b"'}},
    "no end": {"structured_outputs": {"grammar": 'root ::= "a" root'}},
    "a nested count": {"structured_outputs": {"regex": "((a{1,300}){1,300}){1,300}"}},
    "nothing but the end": {"structured_outputs": {"regex": "^$"}},
    "a tag": {
        "structured_outputs": {"structural_tag": '{"type": "structural_tag", "format": {"type": "x"}}'}
    },
    "a schema of itself": _schema({"$ref": "#"}),
    "a schema that denies": _schema({"not": {}}),
    "a schema of anything": _schema({}),
}
"""Forms of an answer: each is followed or refused by name."""

SPENDING: dict[str, dict[str, Any]] = {
    "two choices": {"n": 2, "temperature": 0.7, "max_tokens": 8, "ignore_eos": True},
    "a stream of three choices": {"n": 3, "temperature": 0.7, "max_tokens": 8, "stream": True},
    "an answer": {"max_tokens": 8},
    "a stop string": {"max_tokens": 24, "stop": ["e"]},
    "a JSON object": {"max_tokens": 8, "response_format": {"type": "json_object"}},
}
"""What is answered, and counted to the token."""
