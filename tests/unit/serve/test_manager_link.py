"""A gateway's link to the manager: over real connections on loopback, in real time, but with no cluster."""

import asyncio
import inspect
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import msgspec
import pytest

from runtime.channel import connection
from runtime.channel.client import Channel
from runtime.channel.server import ChannelServer
from runtime.channel.wire import VERSION, Address, CallFrame, Hello, encode
from runtime.clock import SystemClock
from runtime.control.hub import Hub
from runtime.core.loops import LoopReport
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.cost import Price
from runtime.core.metering.recent import Mark, Observed
from runtime.core.metering.series import Family, MetricKind, MetricsSnapshot, Series
from runtime.core.metering.usage import Usage
from runtime.core.swap.commands import Action, Command
from runtime.core.swap.routes import GatewayReport, RoutedRelease, RoutingTable, TableStamp
from runtime.core.views.changes import ChangeBatch, EngineChange, NumberedChange, ReleaseChange
from runtime.core.views.forms import Status
from runtime.errors import (
    CommandError,
    CommandRefused,
    EngineUnavailable,
    InterlockError,
    InvalidRequest,
    ModelSetError,
    NoManager,
    RequestError,
    StoreUnavailable,
)
from runtime.serve.management import desk as manager_desk
from runtime.serve.management import link as manager_link
from runtime.serve.management.calls import METHODS, error_of, error_reply_of
from runtime.serve.management.calls import encode as encode_answer
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

ACTIVITY = GatewayActivity(
    gateway="g",
    metered={"engine": Usage(1, 2)},
    first_requests={1: (2, Usage(3, 4))},
    overruns={("agent", "answer"): 1},
    recent={Mark(Observed.REFUSED, 1, "agent", "tenant"): 2},
    tasks=7,
    loops=(LoopReport("follow", 2, "OSError", 5.0),),
)

ASKED = Family("asked", MetricKind.COUNTER, "Asked.", {Series("asked_total", (("a", "b"),)): 2.0})
TOLD = MetricsSnapshot("g", 1, [ASKED])


def routed(number):
    known = content(number)
    return RoutedRelease(
        number, known.digest, "set", known.model_set.chains, known.engines, {"writer": Price(3, 4)}
    )


STATUS = Status(revision=3, edition=2, live=1, wanted=None, releases=[], engines=[], gateways=[])

TABLE = RoutingTable(9, 2, {number: routed(number) for number in (1, 2)}, paused=8)

HEARD = ChangeBatch(
    happened=[
        NumberedChange(
            id=8,
            change=ReleaseChange(
                kind="release", number=2, name=None, from_state=None, to_state="live", reason=None, at=1.5
            ),
        ),
        NumberedChange(
            id=9,
            change=EngineChange(
                kind="engine",
                digest="d",
                name="w",
                from_state="absent",
                to_state=None,
                phase=None,
                reason="r",
                at=2.0,
            ),
        ),
    ],
    last=9,
)


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


# What is asked and what is answered cross as they are, of whatever types they are made.
@pytest.mark.parametrize(
    ("method", "argument", "answer"),
    [
        ("next_table", REPORT, TABLE),
        ("report", REPORT, TableStamp(3, 12)),
        ("activity", ACTIVITY, None),
        ("leave", "g", None),
        ("count", TOLD, None),
        ("metrics", TOLD, b"asked_total 2\n"),
        ("command", Command(Action.ROLLBACK, "an operator", 4, 3), STATUS),
        ("plan", "sets/v2.yaml", {"fits": True}),
        ("plan", {"name": "set", "engines": {"writer": {"kind": "fake"}}}, {"fits": False}),
        ("audit", 10, [{"at": 1.5, "actor": None}]),
        ("changes", None, ChangeBatch(happened=[], last=7, missed="")),
        ("changes", 7, HEARD),
    ],
)
async def test_what_crosses(method, argument, answer):
    manager = Manager(**{method: answer})
    async with linked(manager) as (link, _):
        assert await getattr(link, method)(argument) == answer
    assert manager.asked == [(method, argument)]


@pytest.mark.parametrize(("method", "answer"), [("status", STATUS), ("health", {"verdict": "healthy"})])
async def test_what_is_asked_without_an_argument(method, answer):
    async with linked(Manager(**{method: answer})) as (link, _):
        assert await getattr(link, method)() == answer


# A form crosses as plain JSON: a manager of before there were forms is understood, and one of tomorrow, whose
# members are handed on.
async def test_forms_of_other_versions():
    told = STATUS.as_json() | {"tomorrow": {"more": [1]}}
    assert msgspec.msgpack.decode(encode_answer(STATUS)) == STATUS.as_json()
    status = METHODS["status"].decode_answer(msgspec.msgpack.encode(told))
    assert (status.live, status.as_json()) == (1, told)


# A gateway of before tells what it has counted with its report: that it is understood all the same.
def test_a_report_of_before():
    told = asdict(REPORT) | {name: [] for name in ("recent", "loops")}
    told |= {"metered": {"engine": [1, 2]}, "tasks": 7, "clients": 2}
    assert METHODS["report"].decode_argument(encode_answer(told)) == REPORT


# A manager of before has no such call: it is told so, as of one that is away, and goes on with what it has.
async def test_a_manager_of_before(monkeypatch):
    before = {name: method for name, method in METHODS.items() if name != "activity"}
    monkeypatch.setattr(manager_desk, "METHODS", before)
    async with linked(Manager(report=TableStamp(0, 1))) as (link, _):
        with pytest.raises(EngineUnavailable, match="no call 'activity'"):
            await link.activity(ACTIVITY)
        assert await link.report(REPORT) == (0, 1)


# Whatever a gateway may ask has a declared form, and the manager's end can do it.
def test_every_method_is_declared():
    asked = {name for name, _ in inspect.getmembers(ManagerLink, inspect.iscoroutinefunction)}
    assert {name for name in asked if not name.startswith("_")} - {"close"} == set(METHODS)
    assert set(METHODS) <= set(dir(manager_desk.Answering))


def every_error():
    found = [InterlockError]
    for kind in found:
        found += kind.__subclasses__()
    return found


# Every error of the tree crosses as itself, with all that it says.
@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_errors_cross(kind):
    error = kind("set.yaml", "key", "reason") if kind is ModelSetError else kind("what was wrong")
    if isinstance(error, RequestError):
        error.param, error.code = "model", "model_not_found"
    if isinstance(error, CommandRefused):
        error.state = "standby"
    back = error_of(error_reply_of(error))
    assert (type(back), str(back), back.__dict__) == (kind, str(error), error.__dict__)


# What the manager refuses, the gateway raises; one that is not known here keeps its message.
async def test_refusals():
    error = ModelSetError("set.yaml", "engines.writer", "is missing", "writers")
    async with linked(Manager(plan=error, count=StoreUnavailable("away", retry_after=7.0))) as (link, _):
        with pytest.raises(ModelSetError) as refused:
            await link.plan("set.yaml")
        assert (refused.value.key, refused.value.nearest) == ("engines.writer", "writers")
        with pytest.raises(StoreUnavailable) as away:
            await link.count(TOLD)
        assert away.value.retry_after == 7.0
    newer = error_reply_of(CommandError("what it says"))
    newer.kind = "ErrorOfTomorrow"
    assert "what it says" in str(error_of(newer))


# What has no form on the wire is refused where it is asked, and the next question is answered.
async def test_what_has_no_form():
    async with linked(Manager(status=STATUS, command=STATUS)) as (link, _):
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            await link.command(Command(Action.PROMOTE, "operator", 2**70))
        deep = []
        for _ in range(5000):
            deep = [deep]
        with pytest.raises(InvalidRequest, match="cannot be sent"):
            await link.plan({"name": deep})
        assert await link.status() == STATUS


# What breaks inside the manager, or comes back in another form, is an error of that one question.
async def test_a_broken_answer():
    async with linked(Manager(status=ValueError("a bug"), audit="no list", health={})) as (link, _):
        with pytest.raises(EngineUnavailable, match="a bug"):
            await link.status()
        with pytest.raises(EngineUnavailable, match="cannot be read"):
            await link.audit(1)
        assert await link.health() == {}


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
