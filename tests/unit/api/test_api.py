import asyncio
import contextlib
import functools
import json

import httpx
import pytest
from pydantic import SecretStr

from runtime.api.app import build_app
from runtime.api.headers import SESSION
from runtime.settings import Settings
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World, content

ASK = {"model": "agent", "messages": [{"role": "user", "content": "my bill"}]}


JSON = {"content-type": "application/json"}

NO_KEYS = functools.cache(memory_keys)
"""An empty store, made once: what is not about keys shall not wait for migrations."""


CHAT_SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
}
"""A request for a chat completion as a server hands it to an application."""


def app_of(world, *, gateway=0, keys=None, **settings):
    settings = Settings(store_url="sqlite://", **settings)
    return build_app(
        world.gateways[gateway].admission,
        world.manager,
        settings,
        keys or NO_KEYS(),
        world.spending.usage,
        world.spending.of_operators,
        world.clock,
        world.gateways[gateway].follower,
    )


@contextlib.asynccontextmanager
async def serving(host="127.0.0.1", *, writer=None, router=None, live=True, keys=None, **settings):
    """A world with a live release, and an HTTP client of its gateway."""
    async with World(gateways=1) as world:
        if live:
            wanted = content(1, writer={"load": "10ms", **(writer or {})}, router=router)
            world.want(wanted)
            await world.until_live(wanted)
        transport = httpx.ASGITransport(app=app_of(world, keys=keys, **settings), client=(host, 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield world, client


async def post(client, *, headers=None, **changes):
    return await client.post("/v1/chat/completions", json=ASK | changes, headers=headers)


def events(answer):
    """The JSON of each event but the last, which must be [DONE]."""
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


# A whole answer is OpenAI's object, with the release, the hops, and usage as their sum.
async def test_whole_answer():
    async with serving() as (world, client):
        answer = await post(client)
        body = answer.json()
        hops = body["interlock"]["hops"]
        assert (answer.status_code, body["object"], body["model"]) == (200, "chat.completion", "agent")
        assert body["choices"][0]["message"]["content"].startswith("v1-0")
        assert body["usage"]["prompt_tokens"] == sum(hop["prompt_tokens"] for hop in hops)
        assert body["usage"]["completion_tokens"] == sum(hop["completion_tokens"] for hop in hops) == 20
        assert [hop["step"] for hop in hops] == ["triage", "answer"]
        assert answer.headers["x-interlock-release"] == "1"
        assert answer.headers["x-interlock-model-set"] == world.state.live.content.digest
        assert world.leases() == 0


# A stream without include_usage carries `interlock` in its last chunk, which has the finish reason.
async def test_stream_without_usage():
    async with serving() as (world, client):
        chunks = events(await post(client, stream=True))
        assert [bool(chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [False] * 19 + [True]
        assert ["interlock" in chunk for chunk in chunks] == [False] * 19 + [True]
        assert all("usage" not in chunk for chunk in chunks)
        assert world.leases() == 0


# A stream with include_usage ends with one chunk without choices: usage, and `interlock` beside it.
async def test_stream_with_usage():
    async with serving() as (_, client):
        chunks = events(await post(client, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["completion_tokens"] == 20
        assert len(chunks[-1]["interlock"]["hops"]) == 2
        assert all("interlock" not in chunk for chunk in chunks[:-1])


# What is malformed is refused with 400 and the field's name, and costs no lease.
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages.0.role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"model": 7}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "messages"),
    ],
)
async def test_malformed_is_named(changes, param):
    async with serving() as (world, client):
        answer = await post(client, **changes)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert world.leases() == 0


# A request's session is in the ledger as its client names it; what is none is refused, and costs nothing.
async def test_sessions():
    async with serving() as (world, client):
        for told in ("chat 7", "x" * 128, "~"):
            assert (await post(client, headers={SESSION: told})).status_code == 200
        await post(client)
        for told in ("", "x" * 129, "sé", "a\tb", "\x7f"):
            answer = await post(client, headers={SESSION: told.encode("latin-1")})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, SESSION)
            assert answer.json()["error"]["type"] == "invalid_request_error"
        twice = await post(client, headers=[(SESSION, "a"), (SESSION, "b")])
        assert twice.status_code == 400
        told = (await client.get("/admin/v1/usage", params={"by": "session"})).json()["usage"]
        hops = {group["session"]: group["hops"] for group in told}
        assert hops == {"": 2, "chat 7": 2, "x" * 128: 2, "~": 2}
        assert world.leases() == 0


# A body that is no JSON object is refused as such.
@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff", b""])
async def test_not_json(raw):
    async with serving() as (_, client):
        answer = await client.post("/v1/chat/completions", content=raw, headers=JSON)
        assert answer.status_code == 400
        assert "body" in answer.json()["error"]["message"]


# An over-long prompt says so with OpenAI's code, streamed or not, as a status and not as an event.
@pytest.mark.parametrize("stream", [False, True])
async def test_overlong_prompt(stream):
    async with serving() as (_, client):
        long = [{"role": "user", "content": "word " * 5000}]
        answer = await post(client, messages=long, stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


# An unknown model is OpenAI's 404, with the nearest name.
async def test_unknown_model():
    async with serving() as (world, client):
        answer = await post(client, model="agnet")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "'agent'" in answer.json()["error"]["message"]
        assert world.leases() == 0
        assert (await client.get("/v1/models/agnet")).status_code == 404


# Without a live release everything that needs one answers 503 and says when to come again.
async def test_no_live_release():
    async with serving(live=False) as (_, client):
        for answer in (await post(client), await client.get("/readyz"), await client.get("/v1/models")):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["message"]
        assert (await client.get("/healthz")).status_code == 200


# A body over the limit is refused before it is parsed.
async def test_body_too_large():
    async with serving(max_body_bytes=1000) as (_, client):
        answer = await post(client, messages=[{"role": "user", "content": "x" * 2000}])
        assert answer.status_code == 413


# An engine's fault before the first byte is a 503; a deadline is a 504.
async def test_faults_before_the_first_byte():
    async with serving() as (world, client):
        await world.cluster.delete(world.state.live.content.engines["writer"])
        answer = await post(client, stream=True)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert world.leases() == 0


# An engine's fault in the middle of a stream is an error event, and the lease closes.
async def test_fault_in_mid_stream():
    async with serving() as (world, client):
        asking = asyncio.create_task(post(client, stream=True))
        await asyncio.sleep(0.2)
        await world.cluster.delete(world.state.live.content.engines["writer"])
        found = events(await asking)
        assert found[-1]["error"]["type"] == "service_unavailable_error"
        assert len(found) > 1
        assert world.leases() == 0


# The models are the chains of the live release.
async def test_models():
    async with serving() as (_, client):
        listed = (await client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["agent"]
        assert (await client.get("/v1/models/agent")).json() == listed["data"][0]
        assert (await client.get("/readyz")).json()["release"] == 1


# Without an admin key, admin calls are answered on loopback only.
@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 403), ("x", 403)]
)
async def test_admin_on_loopback(host, status):
    async with serving(host=host, live=False) as (_, client):
        assert (await client.get("/admin/v1/status")).status_code == status


# With an admin key, only its bearer is answered, from wherever.
async def test_admin_key():
    async with serving(host="10.1.2.3", live=False, admin_key=SecretStr("secret")) as (_, client):
        assert (await client.get("/admin/v1/status")).status_code == 403
        wrong = await client.get("/admin/v1/status", headers={"authorization": "Bearer nope"})
        right = await client.get("/admin/v1/status", headers={"authorization": "Bearer secret"})
        assert (wrong.status_code, right.status_code) == (403, 200)


# Any other path or method is refused in OpenAI's shape, too.
async def test_unknown_paths():
    async with serving(live=False) as (_, client):
        assert (await client.get("/nope")).json()["error"]["type"] == "invalid_request_error"
        assert (await client.get("/v1/chat/completions")).status_code == 405


# A client that goes away, before the first byte or in mid-stream, closes its lease and stops the work.
@pytest.mark.parametrize("after", [0.002, 0.03, 0.2])
@pytest.mark.parametrize("stream", [False, True])
async def test_disconnect(after, stream):
    async with serving() as (world, _):
        raw = json.dumps(ASK | {"stream": stream}).encode()
        inbox = [{"type": "http.request", "body": raw, "more_body": False}]
        sent = []

        async def receive():
            if inbox:
                return inbox.pop()
            await asyncio.sleep(after)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await app_of(world)(dict(CHAT_SCOPE), receive, send)
        assert world.leases() == 0
        assert all([await world.cluster.idle(e) for e in world.state.live.engines])
        assert not any(message.get("more_body") is False for message in sent)
        assert bool(sent) == (stream and after > 0.1)
