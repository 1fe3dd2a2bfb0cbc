"""Whatever comes over a channel: nothing of it ends the process, is kept for ever, or hinders another."""

import asyncio
import socket

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.channel import connection, wire
from runtime.channel import server as channel_server
from runtime.channel.client import Channel
from runtime.channel.engine_calls import answering
from runtime.channel.server import ChannelServer, _Caller
from runtime.channel.wire import VERSION, Address, CallFrame, Hello, ReplyFrame
from runtime.errors import EngineUnavailable
from runtime.serve.management import desk as manager_desk
from runtime.serve.management.calls import METHODS
from tests.unit.channel.test_channel import ASK, Replica
from tests.unit.serve.test_manager_link import REPORT, Manager

SECRET = "the secret"


class Pipe(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self, protocol):
        super().__init__()
        self.protocol = protocol
        self.sent = b""
        self.closed = False
        with socket.socket() as self.socket:
            protocol.connection_made(self)

    def get_extra_info(self, name, default=None):
        return self if name == "socket" else default

    def setsockopt(self, *_):
        """Take what a socket would."""

    def write(self, data):
        self.sent += data

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def abort(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    close = abort

    def give(self, data, size):
        for begin in range(0, len(data), size):
            if self.closed:
                return
            self.protocol.data_received(data[begin : begin + size])

    def told(self):
        """Return the messages that were sent."""
        return list(frames(self.sent))


def frames(data):
    while data:
        length = int.from_bytes(data[:4], "big")
        if length:
            yield msgspec.msgpack.decode(data[4 : 4 + length])
        data = data[4 + length :]


def framed(message):
    return len(message).to_bytes(4, "big") + message


def packed(value):
    return framed(msgspec.msgpack.encode(value))


HELLO = packed(Hello(VERSION, SECRET))

# Without numbers that MessagePack has no form for.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)

METHOD_NAMES = st.sampled_from(
    [*METHODS, "generate", "classify", "embed", "count", "spent", "warm", "", "no"]
)

CALLS = st.lists(st.tuples(st.integers(-2, 5), METHOD_NAMES, st.lists(VALUES, max_size=3)), max_size=4)

DEEP = b"\x91\x93\x01\xa6status" + b"\x91" * 5000
"""A call whose argument is deeper than anything that can be read."""

FRAMES = st.one_of(
    st.binary(max_size=40),  # not even a frame
    st.binary(max_size=40).map(framed),  # a frame of anything
    VALUES.map(packed),  # a message of anything
    CALLS.map(packed),  # calls with anything in them
    CALLS.map(lambda calls: packed([[*call, "one member more"] for call in calls])),
    CALLS.map(lambda calls: packed(calls)[:-1]),  # one that never ends
    st.just(framed(DEEP)),
    st.just((2**32 - 1).to_bytes(4, "big")),  # longer than any
    st.just(bytes(4)),  # a heartbeat
)

EVERY_FRAME = st.lists(FRAMES, max_size=4).map(b"".join)

SIZES = st.integers(1, 64)


def engines():
    return ChannelServer(answering(Replica(tokens=2)), "replica", 4)


def manager():
    known = Manager(next_table=ValueError("none"), report=3, leave=None, status={"live": 1}, audit=[])
    return ChannelServer(manager_desk.answering(known), "manager", 4)


ASKED = {
    engines: CallFrame(1, "count", ["generate", ASK]),
    manager: CallFrame(1, "report", [msgspec.msgpack.encode(REPORT)]),
}
"""What is answered, and what is asked there when nothing hostile is."""


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def serves(server, call):
    """Say whether a caller that behaves is answered."""
    pipe = Pipe(_Caller(server).connection)
    pipe.give(HELLO + packed([call]), 1000)
    for _ in range(200):
        await asyncio.sleep(0)
        if len(pipe.told()) > 1:
            break
    (refusal, replies) = pipe.told()
    pipe.abort()
    await settle()
    return refusal == "" and replies[0][3] is None and replies[0][2] is not None


async def suffer(make, data, size):
    """Give a server what is hostile; another is served beside it and after it, and nothing is left over."""
    server = make()
    server._secret = SECRET
    loop = asyncio.get_running_loop()
    broke = []
    loop.set_exception_handler(lambda _, context: broke.append(context))
    pipe = Pipe(_Caller(server).connection)
    pipe.give(data, size)
    await settle()
    assert await serves(server, ASKED[make])
    assert len(pipe.protocol._unread) <= len(data)
    pipe.abort()
    await settle()
    assert await serves(server, ASKED[make])
    async with asyncio.timeout(5):
        while server._callers:
            await asyncio.sleep(0.001)
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not broke
    return pipe


# Who has not shown who it is, is not served whatever it says, holds next to no memory, and hinders nobody.
@pytest.mark.parametrize("make", ASKED)
@given(data=EVERY_FRAME, size=SIZES)
@example(data=packed([3, "wrong"]), size=7)
@example(data=packed([VERSION + 1, SECRET]), size=7)
@example(data=packed([VERSION, SECRET, "more"])[:-3], size=7)
@example(data=packed("x" * 2000), size=64)
def test_strangers(make, data, size):
    pipe = asyncio.run(suffer(make, data, size))
    assert len(pipe.told()) <= 1
    assert len(pipe.protocol._unread) <= connection._STRANGER + connection._HEAD


# Nor does one that has, whatever it asks: each call of it is answered with an error, or its connection ends.
@pytest.mark.parametrize("make", ASKED)
@given(data=EVERY_FRAME, size=SIZES)
@example(data=packed([[1, "status", []]] * 2), size=64)
@example(data=packed([[1, "generate", [{}, {}]]]), size=64)
@example(data=packed([[1, "report", [b"\xc1"]]]), size=64)
@example(data=packed([[0, "report", [3]]]), size=64)
@example(data=framed(DEEP), size=64)
def test_callers(make, data, size):
    asyncio.run(suffer(make, HELLO + data, size))


REPLIES = st.lists(
    st.tuples(st.integers(-1, 3), VALUES, VALUES, VALUES, VALUES) | st.tuples(st.integers(-1, 3)), max_size=4
)


# A gateway whose replica sends anything loses that connection, and what it had asked over it is told so; or
# it takes an answer. It waits for nothing that cannot come.
@given(
    said=st.sampled_from([packed(""), packed("no"), b"", framed(b"\xc1")]),
    data=st.one_of(EVERY_FRAME, REPLIES.map(packed)),
    size=SIZES,
)
def test_replicas(said, data, size):
    async def play():
        broke = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broke.append(context))
        channel = Channel(Address("replica", "", 0, SECRET), lambda _: None)
        pipe = Pipe(channel._connection)
        asking = asyncio.create_task(channel.ask("count", "generate", ASK))
        await settle()
        pipe.give(said + data, size)
        await settle()
        pipe.abort()
        await settle()
        assert asking.done()
        if asking.exception() is not None:
            assert isinstance(asking.exception(), EngineUnavailable | KeyError)
        await channel.close()
        assert not broke
        assert channel.in_flight == 0

    asyncio.run(play())


# Calls over the most that one caller may have under way are refused, and those under way go on.
def test_too_many_calls(monkeypatch):
    monkeypatch.setattr(channel_server, "_MOST_CALLS", 3)

    async def play():
        held = asyncio.Event()
        server = ChannelServer(manager_desk.answering(Manager(status=held.wait)), "manager", 100)
        server._secret = SECRET
        pipe = Pipe(_Caller(server).connection)
        pipe.give(HELLO + packed([CallFrame(number, "status", []) for number in range(1, 6)]), 1000)
        await settle()
        refused = [reply for message in pipe.told()[1:] for reply in message]
        assert [(reply[0], reply[3][0]) for reply in refused] == [
            (4, "EngineUnavailable"),
            (5, "EngineUnavailable"),
        ]
        assert "3 calls of one caller" in refused[0][3][1]
        pipe.abort()
        await settle()
        assert not server._callers

    asyncio.run(play())


# Strangers that say nothing cannot keep others from being let in: those who have waited longest go.
def test_too_many_strangers(monkeypatch):
    monkeypatch.setattr(channel_server, "_STRANGERS", 3)

    async def play():
        server = manager()
        server._secret = SECRET
        silent = [Pipe(_Caller(server).connection) for _ in range(10)]
        assert await serves(server, ASKED[manager])
        assert [pipe.closed for pipe in silent].count(False) <= 3
        for pipe in silent:
            pipe.abort()
        await settle()
        assert not server._callers

    asyncio.run(play())


# A caller that takes nothing has its replies kept for it up to a limit, and then is let go of.
def test_replies_that_nobody_takes(monkeypatch):
    monkeypatch.setattr(wire, "_MOST_WAITING", 1000)

    async def play():
        lost = []
        made = connection.Connection(lambda _: None, lost.append)
        pipe = Pipe(made)
        sender = wire.Sender(made)
        made.pause_writing()
        for number in range(100):
            sender.send(ReplyFrame(number, value="x" * 100))
            await settle()
        assert pipe.closed
        assert "it reads none" in lost[0]

    asyncio.run(play())


# A part that no message can hold is refused to whoever sends it, and the next one goes out.
def test_a_part_that_is_too_long(monkeypatch):
    monkeypatch.setattr(wire, "_PART", 1000)

    async def play():
        made = connection.Connection(lambda _: None, lambda _: None)
        pipe = Pipe(made)
        sender = wire.Sender(made)
        with pytest.raises(ValueError, match="more than a message takes"):
            sender.send(ReplyFrame(1, value="x" * 2000))
        sender.send(ReplyFrame(2))
        await settle()
        assert [reply[0] for message in pipe.told() for reply in message] == [2]
        pipe.abort()

    asyncio.run(play())


async def alive(seconds, *, heard=lambda: None, taken=lambda: 0):
    """Return when, after how many seconds, a trusted connection was closed, and why; None if it was not."""
    lost, loop = [], asyncio.get_running_loop()
    begun = loop.time()
    made = connection.Connection(
        lambda _: None, lambda why: lost.append((loop.time() - begun, why)), silent_s=8.0
    )
    pipe = Pipe(made)
    pipe.get_write_buffer_size = taken
    made.trust()
    while loop.time() - begun < seconds and not lost:
        heard(pipe)
        await asyncio.sleep(1.0)
    beats = pipe.sent.count(bytes(4))
    pipe.abort()
    await settle()
    return lost[0] if lost[0][1] != "it has ended the connection" else None, beats


# Each end beats; one that says nothing is let go of, one that only beats is not, nor one that takes slowly.
async def test_heartbeats():
    (after, why), beats = await alive(60.0, heard=lambda _: None)
    assert 8.0 <= after <= 12.0
    assert "said nothing for 8 s" in why
    assert beats >= 4
    assert (await alive(60.0, heard=lambda pipe: pipe.give(bytes(4), 4)))[0] is None
    slowly = iter(range(1000, 0, -1))
    gives = {"heard": lambda pipe: pipe.give(bytes(4), 4)}
    assert (await alive(60.0, **gives, taken=lambda: next(slowly)))[0] is None
    (after, why), _ = await alive(60.0, **gives, taken=lambda: 1000)
    assert 10.0 <= after <= 16.0
    assert "taken nothing" in why
