"""Messages over TCP: framing, back-pressure and strangers."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvloop

from runtime.channel import server as channel_server
from runtime.channel.client import Channel
from runtime.channel.connection import Connection
from runtime.channel.engine_calls import answering
from runtime.channel.server import ChannelServer
from runtime.channel.wire import Address, ReplyFrame, Sender
from runtime.errors import EngineLost
from runtime.serve.cluster import direct
from runtime.serve.cluster.direct import DirectEngine
from tests.unit.channel.test_channel import ASK, HELD, Handle, Replica, listening, tokens_of

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time


class Wire(asyncio.Transport):
    """What a connection writes to, and whether it has been broken off."""

    def __init__(self):
        super().__init__({"socket": socket.socket()})
        self.aborted = False
        self.written = []

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


def connection():
    """A connection that is there, what it hears, and its wire."""
    heard, wire = [], Wire()
    made = Connection(heard.append, lambda _: None)
    made.connection_made(wire)
    wire.get_extra_info("socket").close()
    return made, heard, wire


def framed(*messages):
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


# Messages are heard whole and in their order, however the network cuts them; heartbeats are none.
@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
async def test_messages_in_pieces(size):
    made, heard, _ = connection()
    sent = [b"one", b"two", b"three" * 50]
    wire = framed(b"one", b"", *sent[1:])
    for begin in range(0, len(wire), size):
        made.data_received(wire[begin : begin + size])
    assert heard == sent


# Who has not shown who it is cannot fill the memory; who has may send what it likes.
@pytest.mark.parametrize("trusted", [False, True])
async def test_a_great_message(trusted):
    made, heard, wire = connection()
    if trusted:
        made.trust()
    made.data_received((10**6).to_bytes(4, "big"))
    assert wire.aborted is not trusted
    made.data_received(b"x" * 10**6)
    assert [len(message) for message in heard] == ([10**6] if trusted else [])


# What waits while the other end is full goes out as soon as it is not, though nothing more is sent.
async def test_the_other_end_is_full():
    made, _, wire = connection()
    sender = Sender(made)
    made.pause_writing()
    sender.send(ReplyFrame(1))
    await asyncio.sleep(0.01)
    assert wire.written == []
    made.resume_writing()
    assert len(wire.written) == 1


async def raw(address):
    return await asyncio.open_connection(address.host, address.port)


# Who says nothing, or something else, is sent away; only who says nothing is waited for.
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", b""),
        (framed(b"\xc1"), b"no hello"),
        (framed(b"hello"), b"no hello"),
        (framed(b"\x92\x02\xa2\xff\xfe"), b"no hello"),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
    ],
)
async def test_strangers(said, told, monkeypatch):
    monkeypatch.setattr(channel_server, "_HELLO_S", 60.0 if said else 0.05)
    async with listening(Replica()) as (_, address):
        reader, writer = await raw(address)
        writer.write(said)
        async with asyncio.timeout(5):
            assert (await reader.read()).endswith(told)
        writer.close()


# Who has said who it is may be silent from then on.
async def test_a_gateway_may_be_silent(monkeypatch):
    monkeypatch.setattr(channel_server, "_HELLO_S", 0.05)
    async with listening(Replica()) as (_, address):
        made = Channel(address, lambda _: None)
        await made.open()
        await asyncio.sleep(0.2)
        assert await made.ask("count", "generate", ASK) == 2
        await made.close()


# A replica that stops while a gateway is let in gets no calls from it: that gateway goes over the handle.
async def test_a_replica_that_stops_as_it_lets_in():
    async with listening(Replica()) as (server, address):
        server.closing = True
        made = Channel(address, lambda _: None)
        with pytest.raises(EngineLost, match="stops"):
            await made.open()
        await made.close()


# An engine that does not let go of a call keeps its replica from stopping for a moment only.
async def test_a_call_that_does_not_end(monkeypatch):
    monkeypatch.setattr(channel_server, "_BREAK_OFF_S", 0.05)
    held = asyncio.Event()

    class Stubborn(Replica):
        async def engine_call(self, method, *args):
            try:
                await asyncio.sleep(60.0)
            finally:
                await held.wait()

    async with listening(Stubborn()) as (server, address):
        made = Channel(address, lambda _: None)
        await made.open()
        waiting = asyncio.create_task(made.ask("count", "generate", ASK))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await server.close(0.0)
        with pytest.raises(EngineLost):
            await waiting
        held.set()
        await made.close()


# Whoever gives up while it connects is not waited for by whoever closes it, whichever event loop it is.
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("passes", range(8))
def test_an_opening_that_is_given_up(passes, new_loop):
    async def give_up():
        async with listening(Replica()) as (_, address):
            made = Channel(address, lambda _: None)
            opening = asyncio.create_task(made.open())
            for _ in range(passes):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            async with asyncio.timeout(2):
                await made.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(give_up())


# A number is that of one call: who gives it twice is sent away, and both its calls are broken off.
async def test_a_number_that_is_taken():
    async with listening(Replica(**HELD)) as (server, address):
        made = Channel(address, lambda _: None)
        await made.open()
        answer = made.generate(ASK)
        await anext(answer)
        made._numbers = iter([1])
        async with asyncio.timeout(5):
            with pytest.raises(EngineLost):
                await made.ask("count", "generate", ASK)
        await made.close()
        while server._callers:
            await asyncio.sleep(0.01)
        await answer.aclose()


# A replica that stops does not wait for somebody who has not said who it is.
async def test_a_stranger_and_a_replica_that_stops():
    server = ChannelServer(answering(Replica()), "replica", 1)
    _, writer = await raw(await server.open("127.0.0.1"))
    while not server._callers:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        await server.close(10.0)
    writer.close()


# A replica of another Interlock is called over the handle: nobody knows what it would understand.
async def test_another_version(monkeypatch):
    async with listening(Replica()) as (server, address):
        monkeypatch.setattr(
            server, "refusal_of", lambda hello: server.__class__.refusal_of(server, hello._replace(version=1))
        )
        made = Channel(address, lambda _: None)
        with pytest.raises(EngineLost, match="version"):
            await made.open()
        await made.close()


@asynccontextmanager
async def something_else(says):
    """Something that listens and is no replica."""

    async def serve(reader, writer):
        writer.write(says)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield Address("replica", *server.sockets[0].getsockname()[:2], "secret")


# What listens at a replica's address and is none keeps no gateway waiting, and gets no call.
@pytest.mark.parametrize("says", [b"", framed(b"\xc1"), b"\x00\x00\x18\x04\x00\x00\x00\x00\x00"])
async def test_something_else_listens(says, monkeypatch):
    monkeypatch.setattr(direct, "CONNECT_SECONDS", 0.1)
    async with something_else(says) as address:
        handle = Handle(Replica())
        handle.told = [address]
        engine = DirectEngine(handle)
        async with asyncio.timeout(5):
            await engine.open()
        assert len(await tokens_of(engine)) == 5
        assert handle.calls == 1
        await engine.close()


# Both ends find out that the other's machine is gone while nothing is sent.
async def test_silent_connections_are_tried():
    async with listening(Replica()) as (server, address):
        made = Channel(address, lambda _: None)
        await made.open()
        (caller,) = server._callers
        for end in (made._connection, caller.connection):
            connected = end._transport.get_extra_info("socket")
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 4
        await made.close()


# A call whose body does not fit into what the network holds arrives whole, and so does the next.
async def test_a_long_body():
    async with listening(Replica(context_length=10**7)) as (_, address):
        made = Channel(address, lambda _: None)
        await made.open()
        body = {**ASK, "messages": [{"role": "user", "content": "word " * 10**6}]}
        async with asyncio.timeout(20):
            assert await made.ask("count", "generate", body) == 10**6
            assert await made.ask("count", "generate", ASK) == 2
        await made.close()
