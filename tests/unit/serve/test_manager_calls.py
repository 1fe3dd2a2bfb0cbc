"""What crosses a gateway's link to the manager: every call in its declared form, and every error."""

import inspect
from dataclasses import asdict

import msgspec
import pytest

from runtime.core.loops import LoopReport
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.recent import Mark, Observed
from runtime.core.metering.series import Family, MetricKind, MetricsSnapshot, Series
from runtime.core.metering.usage import Usage
from runtime.core.swap.commands import Action, Command
from runtime.core.swap.routes import TableStamp
from runtime.core.views.changes import ChangeBatch, EngineChange, NumberedChange, ReleaseChange
from runtime.errors import (
    CommandError,
    CommandRefused,
    EngineUnavailable,
    InterlockError,
    InvalidRequest,
    ModelSetError,
    RequestError,
    StoreUnavailable,
)
from runtime.serve.management import desk as manager_desk
from runtime.serve.management.calls import METHODS, error_of, error_reply_of
from runtime.serve.management.calls import encode as encode_answer
from runtime.serve.management.link import ManagerLink
from tests.unit.serve.test_manager_link import REPORT, STATUS, TABLE, Manager, linked

pytestmark = pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real sockets need real time

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
