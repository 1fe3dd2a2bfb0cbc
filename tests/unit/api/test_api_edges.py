"""Answers to what should not happen: engines that say nothing, clients that leave early, empty keys."""

import asyncio

import httpx
import pytest

from runtime.api.bodies import PATIENCE_S
from runtime.errors import EngineUnavailable
from tests.unit.api.test_api import ASK, JSON, app_of, events, post, serving
from tests.unit.world import World


def replace_writer(world, generate):
    """Let ``generate`` answer in the writer's place."""
    client = world.gateways[0].follower.routing.live.clients["writer"]
    client.generate = generate


# An engine that ends an answer without giving any is an engine's fault, and no broken 200.
@pytest.mark.parametrize("stream", [False, True])
async def test_empty_answer(stream):
    async def nothing(_body):
        for chunk in ():
            yield [chunk]

    async with serving() as (world, client):
        replace_writer(world, nothing)
        answer = await post(client, stream=stream)
        assert answer.status_code == 503
        assert "without an answer" in answer.json()["error"]["message"]
        assert world.leases() == 0


# A stream that breaks before its finish reason still ends as a stream: what came, the error, [DONE].
async def test_broken_stream_keeps_what_came():
    async with serving() as (world, client):
        whole = events(await post(client, stream=True))
        chunks = world.gateways[0].follower.routing.live.clients["writer"].generate

        async def broken(body):
            answer = chunks(body)
            for _ in range(3):
                yield await anext(answer)
            await answer.aclose()
            raise EngineUnavailable("the engine went away")

        replace_writer(world, broken)
        cut = events(await post(client, stream=True))
        assert [chunk["choices"] for chunk in cut[:-1]] == [chunk["choices"] for chunk in whole[:3]]
        assert cut[-1]["error"]["message"] == "the engine went away"
        assert cut[-1]["error"]["type"] == "service_unavailable_error"


# A client that leaves while it sends its body gets no answer, takes no lease, and breaks nothing.
async def test_client_leaves_while_it_sends():
    messages = [
        {"type": "http.request", "body": b'{"model":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 4000),
        "server": ("test", 80),
    }
    async with serving() as (world, _):
        await app_of(world)(scope, receive, send)
        assert world.leases() == 0
        assert not any(message.get("status") == 200 for message in sent)


# A body that does not come is waited for as long as a client may take, and holds nothing meanwhile.
async def test_a_body_that_does_not_come():
    async def half():
        yield b'{"model": '
        await asyncio.sleep(3600)

    async with serving() as (world, client):
        begun = world.clock.now()
        answer = await client.post("/v1/chat/completions", content=half(), headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
        assert world.clock.now() - begun == pytest.approx(PATIENCE_S, abs=1.0)
        assert world.leases() == 0


# The request's id is the client's if it is a sane one, else a new one each time.
@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("x" * 200, False), ("", False)])
async def test_request_id(given, kept):
    async with serving() as (_, client):
        ids = [
            (await client.post("/v1/chat/completions", json=ASK, headers={"x-request-id": given})).json()[
                "id"
            ]
            for _ in range(2)
        ]
        assert (ids == [f"chatcmpl-{given}"] * 2) == kept
        assert len(set(ids)) == (1 if kept else 2)


# A mistake of ours answers in OpenAI's shape, too, and does not tell clients what is inside.
async def test_unexpected_errors():
    async with World(gateways=1) as world:
        app = app_of(world)
        world.gateways[0].admission.live = lambda: 1 / 0
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 4000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/v1/models")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "division" not in answer.text
