"""A client that does not read its answer holds nothing for longer than its chain's deadline and a little."""

import asyncio

import orjson
import pytest

from runtime.api.answering import READER_SECONDS
from tests.unit.api.test_api import CHAT_SCOPE, app_of, serving
from tests.unit.traffic.test_deadlines import engines


class Reader:
    """An ASGI client that takes `takes` messages and then no more."""

    def __init__(self, takes, **body):
        self.took = []
        self._takes = takes
        asked = {"model": "agent", "messages": [{"role": "user", "content": "my bill"}], **body}
        self._body = [{"type": "http.request", "body": orjson.dumps(asked), "more_body": False}]

    async def receive(self):
        if self._body:
            return self._body.pop()
        return await asyncio.Event().wait()

    async def send(self, message):
        if len(self.took) == self._takes:
            await asyncio.Event().wait()
        self.took.append(message)

    async def ask(self, app):
        await app(dict(CHAT_SCOPE), self.receive, self.send)


# Wherever a client stops reading, its request ends with its lease soon after its chain's deadline.
@pytest.mark.parametrize(("takes", "stream"), [(0, True), (1, True), (3, True), (0, False), (1, False)])
async def test_a_reader_that_stops(takes, stream):
    async with serving() as (world, _):
        reader = Reader(takes, stream=stream)
        began = asyncio.get_running_loop().time()
        deadline = world.gateways[0].follower.routing.live.routed.chains["agent"].deadline
        async with asyncio.timeout(10 * deadline):
            await reader.ask(app_of(world))
        assert asyncio.get_running_loop().time() - began <= deadline + READER_SECONDS + 0.01
        assert len(reader.took) == takes
        assert world.leases() == 0
        assert all([await engine.idle() for engine in engines(world)])


# One that reads to the end gets all of it, though its last piece was long in coming.
async def test_a_reader_that_is_slow():
    async with serving() as (world, _):
        reader = Reader(1000, stream=True)
        quick = reader.send

        async def send(message):
            await asyncio.sleep(0.5)
            await quick(message)

        reader.send = send
        await reader.ask(app_of(world))
        assert reader.took[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        assert reader.took[-2]["body"].endswith(b"data: [DONE]\n\n")
