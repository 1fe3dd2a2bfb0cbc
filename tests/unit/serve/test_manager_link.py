"""A gateway's link to the manager: over real connections on loopback, in real time, but with no cluster."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from runtime.channel import connection
from runtime.channel.client import Channel
from runtime.channel.server import ChannelServer
from runtime.channel.wire import VERSION, Address, CallFrame, Hello, encode
from runtime.clock import SystemClock
from runtime.control.hub import Hub
from runtime.core.metering.cost import Price
from runtime.core.swap.routes import GatewayReport, RoutedRelease, RoutingTable, TableStamp
from runtime.core.views.forms import Status
from runtime.errors import (
    EngineUnavailable,
    NoManager,
)
from runtime.serve.management import desk as manager_desk
from runtime.serve.management import link as manager_link
from runtime.serve.management.calls import METHODS
from runtime.serve.management.link import ManagerLink
from tests.unit.world import content

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time

REPORT = GatewayReport(
    gateway="g",
    sequence=3,
    version=7,
    prepared=frozenset({1, 2}),
    leases={1: 4},
    oldest={1: 0.5},
    faults={2: "no answer"},
)


def routed(number):
    known = content(number)
    return RoutedRelease(
        number, known.digest, "set", known.model_set.chains, known.engines, {"writer": Price(3, 4)}
    )


STATUS = Status(revision=3, edition=2, live=1, wanted=None, releases=[], engines=[], gateways=[])

TABLE = RoutingTable(9, 2, {number: routed(number) for number in (1, 2)}, paused=8)


class Manager:
    """Keeps what it is asked and answers what a test has put up; an error is raised."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def __getattr__(self, name):
        async def answer(*arguments):
            self.asked.append((name, *arguments))
            told = self.answers[name]
            if isinstance(told, Exception):
                raise told
            return await told() if callable(told) else told

        return answer


class Directory:
    """Where the manager is; ``None`` is not known."""

    def __init__(self, address=None):
        self.known = address
        self.asked = 0

    async def address(self):
        self.asked += 1
        if self.known is None:
            raise EngineUnavailable("no manager has said yet where it is")
        return self.known


@asynccontextmanager
async def listening(manager, **options):
    server = ChannelServer(manager_desk.answering(manager), "manager", 1000, **options)
    address = await server.open("127.0.0.1")
    try:
        yield server, address
    finally:
        await server.close(0.0)


@asynccontextmanager
async def linked(manager):
    async with listening(manager) as (server, address):
        link = ManagerLink(Directory(address))
        try:
            yield link, server
        finally:
            await link.close()


# A table reaches a gateway that waits for it as soon as it is published.
async def test_a_table_is_pushed():
    hub = Hub(SystemClock(), lambda _: None)
    hub.publish(replace(TABLE, version=7, live=1))
    async with linked(hub) as (link, _):
        waiting = asyncio.create_task(link.next_table(REPORT))
        await asyncio.sleep(0.05)
        hub.publish(TABLE)
        async with asyncio.timeout(1):
            assert await waiting == TABLE


# While nobody listens where the manager was, there is none; that is told at once, and another is found.
async def test_a_manager_that_is_replaced():
    async with listening(Manager(report=TableStamp(0, 1))) as (_, address):
        directory = Directory(address)
        link = ManagerLink(directory)
        assert await link.report(REPORT) == (0, 1)
    async with asyncio.timeout(2):
        with pytest.raises(NoManager):
            await link.report(REPORT)
    async with listening(Manager(report=TableStamp(0, 2))) as (_, address):
        directory.known = address
        assert await link.report(REPORT) == (0, 2)
        assert directory.asked == 3
        await link.close()


# A manager that can be reached again is found where it was, though what tells of it does not answer yet.
async def test_a_link_that_was_cut(monkeypatch):
    monkeypatch.setattr(manager_link, "CONNECT_SECONDS", 0.1)
    async with listening(Manager(report=TableStamp(0, 1))) as (_, address):
        directory = Directory(address)
        link = ManagerLink(directory)
        await link.report(REPORT)
        link._channel._connection.close("the network is broken")
        await asyncio.sleep(0.05)
        directory.address = asyncio.Event().wait
        assert await link.report(REPORT) == (0, 1)
        await link.close()


# The address is asked for while there is no connection only, however many ask at once.
async def test_one_connection_for_all():
    async with listening(Manager(report=TableStamp(0, 1))) as (server, address):
        directory = Directory(address)
        link = ManagerLink(directory)
        assert await asyncio.gather(*(link.report(REPORT) for _ in range(50))) == [(0, 1)] * 50
        assert (directory.asked, len(server._callers)) == (1, 1)
        await link.close()


# An operator's question waits for a manager that is just being replaced; a gateway's own tries again itself.
async def test_an_operator_waits(monkeypatch):
    monkeypatch.setattr(manager_link, "RETRY_SECONDS", 0.01)
    directory = Directory()
    link = ManagerLink(directory)
    with pytest.raises(EngineUnavailable, match="where it is"):
        await link.report(REPORT)
    waiting = asyncio.create_task(link.status())
    await asyncio.sleep(0.05)
    async with listening(Manager(status=STATUS)) as (_, address):
        directory.known = address
        async with asyncio.timeout(2):
            assert await waiting == STATUS
        await link.close()
    monkeypatch.setattr(manager_link, "PATIENCE_SECONDS", 0.05)
    async with asyncio.timeout(2):
        with pytest.raises(NoManager):
            await link.status()


async def says_nothing(reader, writer):
    await reader.read()
    writer.close()


# A manager that stands still, or what is none, keeps nobody waiting for longer than the limit.
async def test_a_manager_that_stands_still(monkeypatch):
    monkeypatch.setattr(manager_link, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(manager_link, "RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(METHODS["report"], "seconds", 0.1)
    async with await asyncio.start_server(says_nothing, "127.0.0.1") as silent:
        directory = Directory(Address("manager", *silent.sockets[0].getsockname()[:2], "secret"))
        link = ManagerLink(directory)
        async with asyncio.timeout(2):
            with pytest.raises(EngineUnavailable, match="no connection") as error:
                await link.report(REPORT)
        assert not isinstance(error.value, NoManager)
        async with listening(Manager(report=asyncio.Event().wait)) as (_, directory.known):
            async with asyncio.timeout(2):
                with pytest.raises(EngineUnavailable, match="did not answer report"):
                    await link.report(REPORT)
            await link.close()


async def greedy(address, calls):
    """A caller that asks and never reads; return its end."""
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
    reader._transport.pause_reading()
    hello = encode(Hello(VERSION, address.secret))
    asked = encode([CallFrame(number, "status", []) for number in range(1, calls + 1)])
    for message in (hello, asked):
        writer.write(len(message).to_bytes(4, "big") + message)
    return writer


# A gateway that takes nothing any more is let go of within the limit, and meanwhile no other waits for it.
async def test_a_gateway_that_takes_nothing(monkeypatch):
    monkeypatch.setattr(connection, "_BEAT_S", 0.05)
    monkeypatch.setattr(connection, "_STUCK_S", 0.3)
    async with linked(
        Manager(status=STATUS.model_copy(update={"much": "x" * 100_000}), report=TableStamp(0, 1))
    ) as (link, server):
        await link.report(REPORT)
        writer = await greedy(link._directory.known, calls=300)
        async with asyncio.timeout(5):
            while len(server._callers) < 2:
                await asyncio.sleep(0.01)
            while len(server._callers) > 1:
                async with asyncio.timeout(0.5):
                    assert await link.report(REPORT) == (0, 1)
        writer.transport.abort()
        await asyncio.sleep(0.01)


# A gateway that vanishes takes its polls along: nothing of it is left in the manager.
async def test_a_gateway_that_vanishes():
    before = asyncio.all_tasks()
    async with listening(Manager(next_table=asyncio.Event().wait)) as (server, address):
        channel = Channel(address, lambda _: None)
        await channel.open()
        waiting = asyncio.create_task(channel.ask("next_table", b"\xc0"))
        link = ManagerLink(Directory(address))
        polling = asyncio.create_task(link.next_table(REPORT))
        await asyncio.sleep(0.05)
        assert len(server._callers) == 2
        link._channel._connection._transport.abort()
        channel._connection._transport.abort()
        await asyncio.gather(waiting, polling, return_exceptions=True)
        async with asyncio.timeout(2):
            while server._callers:
                await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before
        await link.close()
