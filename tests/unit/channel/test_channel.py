"""Calls past Serve's handle: over real connections on loopback, so in real time, but with no cluster."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from runtime.channel.client import Channel, least_busy
from runtime.channel.engine_calls import answering
from runtime.channel.fault import Fault, fault_of
from runtime.channel.server import ChannelServer
from runtime.channel.wire import CallFrame
from runtime.core.model_set.engines import FakeEngineSpec
from runtime.engines import contract, deadline
from runtime.engines.fake import FakeEngine
from runtime.errors import EngineLost, EngineUnavailable, InterlockError, InvalidRequest
from runtime.serve.cluster import direct
from runtime.serve.cluster.direct import DirectEngine

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time

ASK = {"messages": [{"role": "user", "content": "my bill"}], "stream": True}

HELD = {"inter_token": "10s"}
"""Of an engine whose calls end when they are told to."""


class Replica:
    """What a replica does for its callers."""

    def __init__(self, **script):
        self.engine = FakeEngine(
            FakeEngineSpec(kind="fake", **{"tokens": 5, "context_length": 4000, **script})
        )
        self.engine.loaded = True
        self.calls = 0

    async def engine_stream(self, body):
        self.calls += 1
        try:
            async for chunks in deadline.generate(self.engine, body):
                yield chunks
        except InterlockError as error:
            yield fault_of(error)

    async def engine_call(self, method, *args):
        self.calls += 1
        try:
            return await getattr(self.engine, method)(*args)
        except InterlockError as error:
            return fault_of(error)


class Handle:
    """Serve's handle: it takes every call, and knows where the replicas are."""

    def __init__(self, replica):
        self.engine = replica.engine
        self.told = []
        self.away = False
        self.calls = self.pings = 0

    async def addresses(self):
        if self.away:
            raise EngineUnavailable("not every replica answered")
        return list(self.told)

    async def ping(self):
        self.pings += 1
        await self.engine.ping()

    async def generate(self, body):
        self.calls += 1
        async for chunks in self.engine.generate(body):
            yield chunks

    async def spent(self, hop):
        self.calls += 1
        return await self.engine.spent(hop)


class Whole:
    """A direct engine as a whole one: what its owner does is done where it runs."""

    def __init__(self, engine, hosted):
        self._engine, self._hosted = engine, hosted

    def __getattr__(self, name):
        return getattr(self._engine if hasattr(self._engine, name) else self._hosted, name)


@asynccontextmanager
async def listening(replica, name="replica", limit=100):
    server = ChannelServer(answering(replica), name, limit)
    address = await server.open("127.0.0.1")
    try:
        yield server, address
    finally:
        await server.close(0.0)


@asynccontextmanager
async def connected(limit=100, **script):
    """A direct engine with one replica."""
    replica = Replica(**script)
    handle = Handle(replica)
    async with listening(replica, limit=limit) as (server, address):
        handle.told = [address]
        engine = DirectEngine(handle)
        await engine.open()
        try:
            yield engine, replica, handle, server
        finally:
            await engine.close()


async def tokens_of(engine, body=ASK):
    return [chunk async for chunks in engine.generate(body) for chunk in chunks]


# An engine keeps every promise of a generating engine, and of an encoder, over a channel too.
@pytest.mark.parametrize(
    "check", [*contract.GENERATING, *contract.ENCODING], ids=lambda check: check.__name__
)
async def test_contract(check):
    timing = {"time_to_first_token": "1ms", "inter_token": "1ms", "tokens": 600}
    async with connected(**timing) as (engine, replica, handle, _):
        await check(Whole(engine, replica.engine))
        assert handle.calls == 0


# Of a stream only what lies between its first token and its end waits for a replica's other streams.
async def test_first_token_and_end_are_not_paced():
    paces = []

    class Caller:
        def send(self, _, *, paced=False):
            paces.append(paced)

    await answering(Replica(tokens=4, inter_token="1ms"))(CallFrame(1, "generate", [ASK]), Caller())
    assert paces == [False, True, True, True, False]


# A call goes to a replica that a channel is open to, and over the handle while there is none.
async def test_the_handle_takes_what_no_channel_takes():
    async with connected() as (engine, replica, handle, _):
        await tokens_of(engine)
        assert (replica.calls, handle.calls) == (1, 0)
    handle.told = [None]
    engine = DirectEngine(handle)
    await engine.open()
    assert len(await tokens_of(engine)) == 5
    assert (replica.calls, handle.calls) == (1, 1)
    await engine.close()


# Who does not know the secret of a replica is not served.
@pytest.mark.parametrize("secret", ["", "wrong"])
async def test_secret(secret):
    replica = Replica()
    async with listening(replica) as (_, address):
        channel = Channel(address._replace(secret=secret), lambda _: None)
        with pytest.raises(EngineLost, match="secret"):
            await channel.open()
        await channel.close()
    assert replica.calls == 0


# A replica that stops lets what is under way end, and takes nothing new; that goes over the handle.
async def test_a_replica_that_stops(monkeypatch):
    monkeypatch.setattr(direct, "RETRY_SECONDS", 60.0)
    async with connected(inter_token="20ms") as (engine, _, handle, server):
        answer = engine.generate(ASK)
        first = await anext(answer)
        closing = asyncio.create_task(server.close(5.0))
        rest = [chunk async for chunks in answer for chunk in chunks]
        assert len([*first, *rest]) == 5
        await closing
        assert handle.calls == 0
        assert len(await tokens_of(engine)) == 5
        assert handle.calls == 1


# A stream whose replica is gone says so: the client has a part of it, so it is not asked for again.
async def test_a_replica_that_is_lost():
    async with connected(**HELD) as (engine, _, _, server):
        answer = engine.generate(ASK)
        await anext(answer)
        closing = asyncio.create_task(server.close(0.0))
        with pytest.raises(EngineLost):
            await anext(answer)
        await closing


# Replicas that come are called, and those that are gone are not, within a look.
async def test_replicas_come_and_go(monkeypatch):
    monkeypatch.setattr(direct, "REFRESH_SECONDS", 0.02)
    async with connected() as (engine, first, handle, _):
        second = Replica()
        async with listening(second, "second") as (_, address):
            handle.told = [address]
            async with asyncio.timeout(5):
                while not second.calls:
                    await tokens_of(engine)
                    await asyncio.sleep(0.01)
            first.calls = 0
            await tokens_of(engine)
            assert first.calls == 0
            handle.away = True  # what is not known is no reason to give up what works
            await asyncio.sleep(0.05)
            second.calls = 0
            await tokens_of(engine)
            assert (second.calls, handle.calls) == (1, 0)


# A replica that takes no connection is called over the handle; the gateway does not wait for it.
async def test_a_replica_behind_a_firewall(monkeypatch):
    monkeypatch.setattr(direct, "CONNECT_SECONDS", 0.05)
    replica = Replica()
    handle = Handle(replica)
    async with listening(replica) as (server, address):
        await server.close(0.0)
        handle.told = [address]
        engine = DirectEngine(handle)
        await engine.open()
        assert len(await tokens_of(engine)) == 5
        assert handle.calls == 1
        await engine.close()


# While there is no way to one of the replicas, calls go over the handle: else it would get none of them.
async def test_a_replica_beside_that_takes_no_connection():
    async with connected() as (engine, replica, handle, _):
        handle.told = [*handle.told, None]
        await engine._refresh()
        await tokens_of(engine)
        assert (replica.calls, handle.calls) == (0, 1)
        handle.told = handle.told[:1]
        await engine._refresh()
        await tokens_of(engine)
        assert (replica.calls, handle.calls) == (1, 1)


# A replica that does not say where it is keeps no gateway waiting.
async def test_a_replica_that_stands_still(monkeypatch):
    monkeypatch.setattr(direct, "CONNECT_SECONDS", 0.02)
    handle = Handle(Replica())
    handle.addresses = asyncio.Event().wait
    engine = DirectEngine(handle)
    async with asyncio.timeout(5):
        await engine.open()
    assert len(await tokens_of(engine)) == 5
    await engine.close()


# Whatever keeps replicas from being looked for once, they are looked for again.
async def test_a_refresh_that_breaks(monkeypatch):
    monkeypatch.setattr(direct, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(direct, "REFRESH_SECONDS", 0.01)
    async with connected() as (engine, _, handle, _):
        looks = []

        async def addresses():
            looks.append(1)
            raise ConnectionError

        handle.addresses = addresses
        async with asyncio.timeout(5):
            while len(looks) < 3:
                await asyncio.sleep(0.01)
        assert len(await tokens_of(engine)) == 5


# What cannot be read ends the connection, and every call on it: nobody waits for an answer that is lost.
async def test_what_cannot_be_read(monkeypatch):
    async with connected(**HELD) as (engine, replica, _, _):
        waiting = engine.generate(ASK)
        await anext(waiting)

        async def unreadable(*_):
            return Fault("InvalidRequest", "no", param=3)

        monkeypatch.setattr(replica, "engine_call", unreadable)
        async with asyncio.timeout(5):
            with pytest.raises(EngineLost):
                await engine.count("generate", ASK)
            with pytest.raises(EngineLost):
                await anext(waiting)


# Requests can ask an engine for what requests need, and for nothing that is its owner's to do.
@pytest.mark.parametrize("method", ["sleep", "wake", "warm", "ended", "engine_stream", "__init__"])
async def test_what_is_the_owners(method):
    async with connected() as (engine, replica, _, _):
        (channel,) = engine._channels.values()
        with pytest.raises(EngineUnavailable, match="requests have no call"):
            await channel.ask(method)
        assert replica.calls == 0


# Whether an engine is there, and what a call has spent, is asked past the handle, too: whoever answers over
# it stands still if the gateway's node has gone dark. While a replica has no channel the handle asks all.
async def test_ping_and_spent_go_past_the_handle():
    async with connected() as (engine, replica, handle, _):
        pinged = handle.pings
        await engine.ping()
        assert await engine.spent("never-came") is None
        assert (handle.pings, handle.calls, replica.calls) == (pinged, 0, 2)
        handle.told = [*handle.told, None]
        await engine._refresh()
        await engine.ping()
        await engine.spent("never-came")
        assert (handle.pings, handle.calls, replica.calls) == (pinged + 1, 1, 2)


# Calls go where the fewest are under way, and a call that has ended is not under way.
async def test_the_least_busy():
    async with connected(**HELD) as (engine, first, handle, _):
        second = Replica(**HELD)
        async with listening(second, "second") as (_, address):
            handle.told = [*handle.told, address]
            await engine._refresh()
            answers = []
            for _ in range(6):
                answers.append(engine.generate(ASK))
                await anext(answers[-1])
            assert (first.calls, second.calls) == (3, 3)
            for answer in answers:
                await answer.aclose()
            assert {channel.in_flight for channel in engine._channels.values()} == {0}
    assert least_busy([]) is None


# A replica runs as many calls at once as its deployment allows, whoever calls.
async def test_limit():
    async with connected(limit=1, **HELD) as (engine, replica, _, _):
        answer = engine.generate(ASK)
        await anext(answer)
        waiting = asyncio.create_task(tokens_of(engine))
        await asyncio.sleep(0.05)
        assert replica.calls == 1
        await answer.aclose()
        async with asyncio.timeout(5):
            while replica.calls < 2:
                await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])


# What MessagePack has no form for is the client's mistake, not the engine's.
async def test_a_number_that_is_too_great():
    async with connected() as (engine, _, _, _):
        with pytest.raises(InvalidRequest, match="cannot be sent to an engine"):
            await tokens_of(engine, {**ASK, "seed": 2**70})
