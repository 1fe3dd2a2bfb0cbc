import time

import openai
import pytest

QUESTION = [{"role": "user", "content": "I was charged twice for my subscription."}]


@pytest.fixture
def client(support):
    with openai.OpenAI(base_url=f"{support.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


# A question is routed by meaning and answered by the writer, both hops with times and tokens.
def test_answer(client):
    answer = client.chat.completions.create(model="support-agent", messages=QUESTION)
    triage, writing = answer.model_extra["interlock"]["hops"]
    assert answer.choices[0].message.content
    assert (triage["step"], writing["step"]) == ("triage", "answer")
    assert triage["prompt_tokens"] > 0
    assert triage["completion_tokens"] == 0
    assert answer.usage.completion_tokens == writing["completion_tokens"] > 0
    assert 0 < writing["ttft_ms"] <= writing["duration_ms"]


# What a prompt shares with an earlier one is counted as cached, by the engine's own count.
def test_cached_tokens_are_counted(client):
    for _ in range(2):
        answer = client.chat.completions.create(model="support-agent", messages=QUESTION, max_tokens=4)
    writing = answer.model_extra["interlock"]["hops"][-1]
    assert answer.usage.prompt_tokens_details.cached_tokens == writing["cached_tokens"] > 0


# Sampling parameters of the last step pass through to vLLM: several choices, stops, log-probabilities.
def test_sampling_parameters_pass_through(client):
    answer = client.chat.completions.create(
        model="support-agent",
        messages=QUESTION,
        n=2,
        max_tokens=8,
        temperature=1.0,
        seed=3,
        logprobs=True,
        top_logprobs=2,
        extra_body={"ignore_eos": True, "top_k": 20},
    )
    assert len(answer.choices) == 2
    assert answer.usage.completion_tokens == 16
    assert all(len(choice.logprobs.content) == 8 for choice in answer.choices)


# A stream of several choices counts the tokens of all of them; the shipped set leaves room for chance.
def test_stream_of_two_choices(client):
    chunks = list(
        client.chat.completions.create(
            model="support-agent",
            messages=QUESTION,
            n=2,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    assert chunks[-1].usage.completion_tokens == 12


# vLLM's own refusals come back as 400 with the field's name.
def test_refusals_name_the_field(client):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="support-agent", messages=QUESTION, extra_body={"top_k": "many"})
    assert wrong.value.param == "top_k"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model="support-agent", messages=[{"role": "user", "content": "railway " * 3000}]
        )
    assert long.value.code == "context_length_exceeded"


# Of a whole answer that its client does not wait for, vLLM's own count is in the ledger.
def test_a_whole_answer_broken_off(support, client):
    def cancelled():
        groups = support.http.get("/admin/v1/usage", params={"by": "outcome"}).json()["usage"]
        return next((g["completion_tokens"] for g in groups if g["outcome"] == "cancelled"), 0)

    before = cancelled()
    hasty = client.with_options(timeout=6.0)
    with pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(
            model="support-agent", messages=QUESTION, max_tokens=900, extra_body={"ignore_eos": True}
        )
    end = time.monotonic() + 20
    while cancelled() == before and time.monotonic() < end:
        time.sleep(0.1)
    told = support.http.get("/admin/v1/usage", params={"by": "outcome"}).json()["usage"]
    assert before < cancelled() < before + 900, told
