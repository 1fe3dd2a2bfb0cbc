"""The proxy of the update benchmark, in front of scripted servers; it needs neither Ray nor a model."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from benchmarks.parts.flip_proxy import CONTROL, FlipProxy, Target
from benchmarks.parts.open_loop import SERVED_BY, LoadGenerator, Plan
from benchmarks.parts.script import Script


class Server:
    """Answers with its name and a piece of text as often as it is let."""

    def __init__(self, name):
        self.name, self.bodies = name, []
        self.let = asyncio.Semaphore(0)
        self.breaks = False

    async def answer(self, request):
        self.bodies.append(await request.json())
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(3):
            await self.let.acquire()
            if self.breaks:
                request.transport.abort()
                return response
            await response.write(f"{self.name};".encode())
        await response.write_eof()
        return response


@asynccontextmanager
async def served(app):
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def standing():
    """A proxy in front of the first of two servers, and a client of it."""
    first, second = Server("first"), Server("second")
    apps = [web.Application() for _ in range(2)]
    for app, server in zip(apps, (first, second), strict=True):
        app.router.add_post("/v1/ask", server.answer)
    async with (
        served(apps[0]) as first_url,
        served(apps[1]) as second_url,
        served(FlipProxy(Target(first_url, 1)).application()) as url,
        aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=10)) as client,
    ):
        first.url, second.url = first_url, second_url
        yield client, first, second


async def flip(client, server, release=2):
    async with client.put(CONTROL, json={"url": server.url, "release": release}) as answer:
        assert answer.status == 200


async def under_way(client):
    async with client.get(CONTROL) as answer:
        return await answer.json()


def let(server, pieces):
    for _ in range(pieces):
        server.let.release()


# What is under way at a flip ends where it began; what is sent after it goes to the new target.
async def test_what_is_under_way_ends_where_it_began():
    async with standing() as (client, first, second):
        let(first, 1)
        async with client.post("/v1/ask", json={"n": 1}) as early:
            assert await early.content.readany() == b"first;"
            await flip(client, second)
            let(second, 3)
            async with client.post("/v1/ask", json={"n": 2}) as late:
                assert await late.text() == "second;second;second;"
                assert late.headers[SERVED_BY] == "2"
            let(first, 2)
            assert await early.text() == "first;first;"
            assert early.headers[SERVED_BY] == "1"
        assert (first.bodies, second.bodies) == ([{"n": 1}], [{"n": 2}])


# The proxy knows how many requests are under way at each target: who flips by hand waits for them.
async def test_it_tells_what_is_under_way():
    async with standing() as (client, first, second):
        let(first, 1)
        async with client.post("/v1/ask", json={}) as early:
            await early.content.readany()
            await flip(client, second)
            assert await under_way(client) == {"1": 1}
            let(first, 2)
            await early.text()
        while (await under_way(client))["1"]:
            await asyncio.sleep(0)


# Pieces come through as they are written, not at the end.
async def test_pieces_come_as_they_are_written():
    async with standing() as (client, first, _), client.post("/v1/ask", json={}) as answer:
        for _ in range(3):
            let(first, 1)
            assert await answer.content.readany() == b"first;"


# A target that does not listen is a 502 that says for which version it stands.
async def test_a_dead_target_is_a_502():
    async with standing() as (client, first, _):
        first.url = "http://127.0.0.1:9"
        await flip(client, first, release=7)
        async with client.post("/v1/ask", json={}) as answer:
            assert (answer.status, answer.headers[SERVED_BY]) == (502, "7")


# An answer that breaks off breaks off for the client, too: it must not look whole.
async def test_what_breaks_off_breaks_off_for_the_client():
    async with standing() as (client, first, _):
        let(first, 1)
        async with client.post("/v1/ask", json={}) as answer:
            assert await answer.content.readany() == b"first;"
            first.breaks = True
            let(first, 1)
            with pytest.raises(aiohttp.ClientError):
                await answer.text()


# A client that leaves leaves the target, too, and is counted no more.
async def test_a_client_that_leaves_is_counted_no_more():
    async with standing() as (client, first, _):
        let(first, 1)
        answer = await client.post("/v1/ask", json={})
        await answer.content.readany()
        answer.close()
        let(first, 2)
        while (await under_way(client))["1"]:
            await asyncio.sleep(0)


async def scripted(request):
    body = await request.json()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    async for event in Script(0.02, 0.005).events(body):
        await response.write(
            event.replace(b"data: [DONE]", b'data: {"hops": [{"version": 1}]}\n\ndata: [DONE]')
        )
    return response


# The load generator reads who has answered, what that took and when pieces came, from whomever it asks.
async def test_the_load_generator_reads_who_has_answered():
    app = web.Application()
    app.router.add_post("/v1/chat/completions", scripted)
    async with served(app) as server, served(FlipProxy(Target(server, 3)).application()) as url:
        load = LoadGenerator(Plan(url, "m", ["why?"], rate=100.0, stream_share=1.0, max_tokens=4))
        offered = asyncio.create_task(load.run())
        while len(load.records) < 3:
            await asyncio.sleep(0.01)
        load.stop()
        await offered
    assert {record.error for record in load.records} == {None}
    assert {(r.release, r.completion_tokens, len(r.hops)) for r in load.records} == {(3, 4, 1)}
    assert all(r.pieces[0] == r.first and r.pieces == sorted(r.pieces) for r in load.records)
