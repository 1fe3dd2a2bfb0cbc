"""Messages over TCP: framing, back-pressure and strangers."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from runtime.errors import EngineLost
from runtime.serve import channel, direct
from runtime.serve.channel import Address, Channel, ChannelServer
from runtime.serve.connection import Connection
from runtime.serve.direct import DirectEngine
from tests.unit.test_channel import ASK, Handle, Replica, listening, tokens_of

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time


class Wire(asyncio.Transport):
    """What a connection writes to, and whether it has been broken off."""

    def __init__(self):
        super().__init__({"socket": socket.socket()})
        self.aborted = False

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


# Messages are heard whole and in their order, however the network cuts them.
@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
async def test_messages_in_pieces(size):
    made, heard, _ = connection()
    sent = [b"one", b"", b"three" * 50]
    wire = framed(*sent)
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


async def raw(address):
    return await asyncio.open_connection(address.host, address.port)


# Who does not say who it is, or says something else, is sent away; it does not keep a replica from stopping.
@pytest.mark.parametrize("said", [b"", framed(b"\xc1"), framed(b"hello"), b"GET / HTTP/1.1\r\n\r\n"])
async def test_strangers(said, monkeypatch):
    monkeypatch.setattr(channel, "_INTRODUCTION_S", 0.05)
    async with listening(Replica()) as (_, address):
        reader, writer = await raw(address)
        writer.write(said)
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()


# A replica that stops does not wait for somebody who has not said who it is.
async def test_a_stranger_and_a_replica_that_stops():
    server = ChannelServer(Replica(), "replica", 1)
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
            server, "knows", lambda hello: server.__class__.knows(server, hello._replace(version=1))
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
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        await made.close()


# A call whose body does not fit into what the network holds arrives whole.
async def test_a_long_body():
    async with listening(Replica(context_length=10**7)) as (_, address):
        made = Channel(address, lambda _: None)
        await made.open()
        body = {**ASK, "messages": [{"role": "user", "content": "word " * 10**6}]}
        async with asyncio.timeout(20):
            assert await made.ask("count", "generate", body) == 10**6
        await made.close()
