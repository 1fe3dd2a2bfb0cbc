import json

import httpx
import openai
import pytest


# The official client gets a whole answer, with the sum of the hops as usage and the release beside it.
def test_openai_client_whole(interlock):
    client = openai.OpenAI(base_url=f"{interlock.url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model="support-agent", messages=[{"role": "user", "content": "my bill"}], max_tokens=5
    )
    hops = answer.model_extra["interlock"]["hops"]
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 5
    assert answer.usage.prompt_tokens == sum(hop["prompt_tokens"] for hop in hops)
    assert [hop["step"] for hop in hops] == ["triage", "answer"]


# The official client streams, and the last chunk says which release served and what each hop took.
def test_openai_client_stream(interlock):
    client = openai.OpenAI(base_url=f"{interlock.url}/v1", api_key="none")
    chunks = list(
        client.chat.completions.create(
            model="support-agent",
            messages=[{"role": "user", "content": "my bill"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.completion_tokens == 30
    assert len(chunks[-1].model_extra["interlock"]["hops"]) == 2


# Errors reach the official client as its own classes: 404 for the model, 400 for a field.
def test_openai_client_errors(interlock):
    client = openai.OpenAI(base_url=f"{interlock.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "my bill"}]
    with pytest.raises(openai.NotFoundError, match="support-agnt"):
        client.chat.completions.create(model="support-agnt", messages=messages)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="support-agent", messages=messages, temperature=9)
    assert refused.value.param == "temperature"


# The request id that a client sends comes back, once; so do release and model set.
def test_headers(interlock):
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}]}
    answer = interlock.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    assert answer.json()["id"] == "chatcmpl-mine-1"
    assert answer.headers["x-interlock-release"] == str(answer.json()["interlock"]["release"])
    assert answer.headers["x-interlock-model-set"] == answer.json()["interlock"]["model_set"]


# A client that goes away in the middle of a stream gives its lease back and stops the engine's work.
def test_disconnect_closes_the_lease(interlock):
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], "stream": True}
    with (
        httpx.Client(base_url=interlock.url, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        for line in answer.iter_lines():
            if line.startswith("data: "):
                assert json.loads(line[6:])["choices"]
                break
    status = interlock.until(lambda s: sum(g["leases"] for g in s["gateways"]) == 0, seconds=5)
    assert status["live"] is not None


# The command shows what the API knows, as a table and as JSON, and says where nobody answers.
def test_status_command(interlock):
    table = interlock.run("status")
    assert table.returncode == 0
    assert "live" in table.stdout
    assert interlock.status()["wanted"]["outcome"] in ("live", "failed")
    interlock.port, port = 1, interlock.port
    try:
        nobody = interlock.run("status")
    finally:
        interlock.port = port
    assert nobody.returncode == 1
    assert "no gateway answers" in " ".join(nobody.stderr.split())
