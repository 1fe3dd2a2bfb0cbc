"""Forty shapes of chat requests that are valid, whoever sends them: members beside ``model``, by name.

Each has to be answered, and answered alike with a token budget and without. Those of ``SHAPES`` are right for
any engine that generates; the set's own sampling may be greedy, so what wants chance says its temperature.
Nearly all say how many tokens they want, so that answers are short on a real engine, too.
"""

from __future__ import annotations

from typing import Any

QUESTION = {"role": "user", "content": "I was charged twice. What can I do?"}
ASKED = [QUESTION]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is like in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    ],
}
VERDICT = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def _text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _told(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"messages": list(messages), "max_tokens": 4, **members}


def _asked(**members: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 4, **members}


MESSAGES: dict[str, dict[str, Any]] = {
    "a question": _told(QUESTION),
    "a part of text": _told({"role": "user", "content": _text("my bill")}),
    "parts of text": _told({"role": "user", "content": _text("my bill", "is wrong", "")}),
    "a part that is a string": _told({"role": "user", "content": ["my bill"]}),
    "an input_text part": _told({"role": "user", "content": [{"type": "input_text", "text": "my bill"}]}),
    "an empty text": _told({"role": "user", "content": ""}),
    "no parts": _told({"role": "user", "content": []}, QUESTION),
    "a system message": _told({"role": "system", "content": "Be brief."}, QUESTION),
    "a system message in parts": _told({"role": "system", "content": _text("Be", "brief.")}, QUESTION),
    "two system messages": _told(
        {"role": "system", "content": "Be brief."}, {"role": "system", "content": "Be kind."}, QUESTION
    ),
    "a developer's message": _told({"role": "developer", "content": "Be brief."}, QUESTION),
    "a conversation": _told(QUESTION, {"role": "assistant", "content": "Tell me more."}, QUESTION),
    "an answer as clients echo it": _told(
        QUESTION,
        {"role": "assistant", "content": "More?", "refusal": None, "annotations": [], "audio": None}
        | {"function_call": None, "tool_calls": None},
        QUESTION,
    ),
    "an answer without content": _told(QUESTION, {"role": "assistant", "content": None}, QUESTION),
    "a tool's answer": _told(
        QUESTION, CALLED, {"role": "tool", "tool_call_id": "call-1", "content": "rain"}, tools=[WEATHER]
    )
    | {"tool_choice": "none"},
    "a tool's answer in parts": _told(
        QUESTION, CALLED, {"role": "tool", "tool_call_id": "call-1", "content": _text("rain")}, QUESTION
    ),
    "a refusal": _told(QUESTION, {"role": "assistant", "content": None, "refusal": "No."}, QUESTION),
    "names": _told({"role": "user", "name": "ann", "content": "my bill"}),
    "marks of a template": _told({"role": "user", "content": "<|im_start|>system {{ x }} {% if %}"}),
    "what is not ASCII": _told({"role": "user", "content": "Grüße, 世界 🚂\u2028 \x00"}),
    "the model's word last": _told(QUESTION, {"role": "assistant", "content": "You can"}),
}
"""Shapes of conversations."""

MEMBERS: dict[str, dict[str, Any]] = {
    "no cap": {"messages": ASKED, "stop": ["."]},
    "the newer cap": {"messages": ASKED, "max_completion_tokens": 3},
    "both caps": _asked(max_completion_tokens=3),
    "nulls": _asked(temperature=None, stop=None, tools=None, stream_options=None, n=None, seed=None),
    "streamed": _asked(stream=True),
    "streamed with usage": _asked(stream=True, stream_options={"include_usage": True}),
    "stream options of null": _asked(stream=True, stream_options={"include_usage": None}),
    "greedy": _asked(temperature=0),
    "by chance, seeded": _asked(temperature=0.7, top_p=0.9, seed=7),
    "several choices": _asked(n=2, temperature=0.7, seed=7),
    "penalties": _asked(frequency_penalty=0.5, presence_penalty=-0.5, repetition_penalty=1.1),
    "a stop string": _asked(stop="zebra"),
    "four stop strings": _asked(stop=["zebra", "yak", "xerus", "wombat"]),
    "log probabilities": _asked(logprobs=True, top_logprobs=2),
    "a biased token": _asked(logit_bias={"5": -100}),
    "vLLM's sampling": _asked(top_k=20, min_p=0.05, min_tokens=2, ignore_eos=True, temperature=0.7, seed=1),
    "a JSON object": _asked(response_format={"type": "json_object"}),
    "a JSON schema": _asked(
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT}}
    ),
    "what has no meaning here": _asked(
        user="ann", store=True, metadata={"k": "v"}, service_tier="auto", prompt_cache_key="k"
    ),
}
"""Shapes of what is said beside the conversation."""

SHAPES = MESSAGES | MEMBERS
