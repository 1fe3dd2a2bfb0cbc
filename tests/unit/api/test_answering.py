"""A form of the API that is not chat's: what runs a request knows none of them."""

import contextlib
from dataclasses import replace

import pytest

from runtime.api.answering import ChainResponse
from runtime.core.requests.ask import Ask
from runtime.errors import EngineUnavailable, InvalidRequest
from runtime.walking.context import RequestContext
from tests.unit.api.test_api import CHAT_SCOPE, serving
from tests.unit.api.test_slow_reader import Reader


class LinesForm:
    """An answer as lines: first its request and its chain, then each list of chunks, last its counts."""

    def __init__(self, head):
        self._begin = f"{head.request_id} {head.chain}\n".encode()

    def body(self, members, trailer):
        return self._begin + members + b"\n" + self._end(trailer)

    def events(self, chunks):
        begin, self._begin = self._begin, b""
        return begin + b"%d\n" % len(chunks)

    def last_events(self, trailer):
        return self._end(trailer)

    def error_events(self, error, trailer):
        return f"broken: {error}\n".encode() + self._end(trailer)

    def _end(self, trailer):
        return f"release {trailer.release.number}, {len(trailer.hops)} hops, {trailer.usage.total}\n".encode()


async def read_lines(raw):
    """Read a body of a chain, a question, and whether a stream is wanted."""
    chain, question, *stream = raw.decode().split("\n")
    if not question:
        raise InvalidRequest("ask something", param="question")
    return Ask(chain, [{"role": "user", "content": question}], stream=bool(stream)), LinesForm


class Client(Reader):
    """Reads everything, and looks into the ledger with each message."""

    def __init__(self, world):
        super().__init__(1000)
        self._world = world
        self.rows = []
        """How many hops were in the ledger when each message with a body came."""

    async def send(self, message):
        if message.get("body"):
            self.rows.append(sum(group["hops"] for group in self._world.ledger.usage("chain")))
        await super().send(message)

    @property
    def status(self):
        return self.took[0]["status"]

    @property
    def said(self):
        return b"".join(message.get("body", b"") for message in self.took).decode()


async def ask(world, raw):
    """Ask in this form."""
    client = Client(world)
    context = RequestContext("r", world.clock.now())
    response = ChainResponse(world.gateways[0].admission, context, raw, read_lines)
    await response(CHAT_SCOPE, client.receive, client.send)
    assert world.leases() == 0
    return client


@contextlib.asynccontextmanager
async def breaking():
    """A world whose writer goes away after the first part of its answer."""
    async with serving() as (world, _):
        routing = world.gateways[0].follower.routing
        writer = routing.live.clients["writer"]

        class Breaks:
            def __getattr__(self, name):
                return getattr(writer, name)

            async def generate(self, body):
                answer = writer.generate(body)
                yield await anext(answer)
                await answer.aclose()
                raise EngineUnavailable("gone")

        clients = {**routing.live.clients, "writer": Breaks()}
        routing.hold(replace(routing.live, clients=clients))
        yield world, writer


# Whole or as it comes, an answer is written by its request's form alone.
async def test_a_form():
    async with serving(writer={"tokens": 3}) as (world, _):
        whole = await ask(world, b"agent\nmy bill")
        begin, members, end = whole.said.splitlines()
        assert (whole.status, begin) == (200, "r agent")
        assert members.startswith('"choices":[')
        assert end == "release 1, 2 hops, 9"
        streamed = await ask(world, b"agent\nmy bill\nstream")
        begin, *parts, end = streamed.said.splitlines()
        assert (streamed.status, begin, end) == (200, "r agent", "release 1, 2 hops, 9")
        assert sum(map(int, parts)) == 3


# What a form cannot read is refused, and so is what its chain refuses: in OpenAI's shape, with no lease.
@pytest.mark.parametrize(("raw", "status"), [(b"agent\n", 400), (b"nobody\nmy bill", 404)])
async def test_refused(raw, status):
    async with serving() as (world, _):
        client = await ask(world, raw)
        assert client.status == status
        assert client.said.startswith('{"error":')


# However an answer ends, every hop of it is in the ledger before its last byte goes out.
@pytest.mark.parametrize("raw", [b"agent\nmy bill", b"agent\nmy bill\nstream"])
@pytest.mark.parametrize("entered", [serving, breaking])
async def test_settled_before_the_last_byte(entered, raw):
    async with entered() as (world, _):
        client = await ask(world, raw)
        assert client.rows[-1] == 2
        assert client.rows[:-1] == [0] * (len(client.rows) - 1)


# A form ends a stream that breaks; of an answer that is not streamed there is nothing yet but the error.
async def test_broken():
    async with breaking() as (world, _):
        streamed = await ask(world, b"agent\nmy bill\nstream")
        assert "broken: gone" in streamed.said
        assert (await ask(world, b"agent\nmy bill")).status == 503
