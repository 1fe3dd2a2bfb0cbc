"""What of a body reaches vLLM."""

import pytest

from runtime.serve.hosts.vllm.chat_members import admitted

ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
FOR_NOBODY = {
    "ec_transfer_params": {},
    "chat_template": "{{ 'x' }}",
    "return_prompt_text": True,
    "return_assistant_tokens_mask": True,
    "routed_experts_prompt_start": 1,
    "request_id": "x",
    "session_id": "x",
    "interlock_hop": ["h"],
    "model": "other",
    "stream_options": {"include_usage": False},
    "choices": 0,
    "temperature": None,
}


# What is in no list of what may be said never reaches vLLM, and null says nothing.
@pytest.mark.parametrize("name", FOR_NOBODY)
def test_members_for_nobody(name):
    assert admitted({**ASK, name: FOR_NOBODY[name]}, ()) == ASK


# Of template variables those pass that the model's own template reads, and plain: no option of the renderer.
def test_template_variables():
    variables = {"enable_thinking", "date", "messages", "bos_token", "tools", "raise_exception"}
    given = {
        "enable_thinking": False,
        "date": "x" * 257,
        "messages": [],
        "bos_token": "<s>",
        "tools": 1,
        "chat_template": "{% for a in range(9) %}",
        "truncation": True,
        "max_length": 1,
        "return_tensors": "np",
        "padding": "max_length",
        "raise_exception": 0,
        "unknown": 1,
    }
    admission = admitted({**ASK, "chat_template_kwargs": given}, variables)
    assert admission["chat_template_kwargs"] == {"enable_thinking": False}
