"""`/admin/v1/events`: what happens is told in order, bounded, and ends with whoever has to do with it."""

import asyncio
import contextlib
import json
from itertools import pairwise

import pytest

from runtime.api import admin_events as events
from runtime.control.feed import Feed
from runtime.core.swap import events as ev
from runtime.core.views.changes import ChangeBatch
from runtime.errors import EngineUnavailable
from tests.unit.api.test_api import CHAT_SCOPE, app_of, serving
from tests.unit.world import content

KEY = "admin-key-0123456789abcdef"


class Reader:
    """An ASGI client of the events; it takes ``pause`` seconds for each piece."""

    def __init__(self, pause=0.0, headers=(), method="GET"):
        self.pause = pause
        self.status = None
        self.text = ""
        self.leaves = asyncio.Event()
        self.over = False
        self._headers = list(headers)
        self._method = method

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await asyncio.sleep(self.pause)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.text += message["body"].decode()
        self.over = not message["more_body"]

    async def ask(self, app):
        scope = CHAT_SCOPE | {"method": self._method, "path": "/admin/v1/events"}
        await app(scope | {"headers": [*scope["headers"], *self._headers]}, self.receive, self.send)

    def told(self, kind=None):
        """Each event as (id, event, data)."""
        found = []
        for piece in self.text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in piece.split("\n") if line and line[0] != ":")
            if "data" in lines and kind in (None, lines["event"]):
                found.append((int(lines.get("id", 0)), lines["event"], json.loads(lines["data"])))
        return found


@contextlib.asynccontextmanager
async def following(app, **options):
    """A reader that follows, and the task in which it does."""
    reader = Reader(**options)
    task = asyncio.create_task(reader.ask(app))
    try:
        await asyncio.sleep(0.01)
        yield reader, task
    finally:
        reader.leaves.set()
        await asyncio.gather(task, return_exceptions=True)


def moves(reader, number):
    return [
        (data["from_state"], data["to_state"])
        for _, _, data in reader.told("release")
        if data["number"] == number
    ]


async def swap(world, version=2, **writer):
    wanted = content(version, writer={"load": "100ms", **writer})
    world.want(wanted)
    await world.until_live(wanted)
    return wanted


# A swap is told state by state, for the new release, the old one, and the engine; ids grow.
async def test_a_swap():
    async with serving() as (world, _), following(app_of(world)) as (reader, _):
        wanted = await swap(world)
        await asyncio.sleep(5)
        told = reader.told()
        up = ["pending", "loading", "warming", "verifying", "standby", "live"]
        assert moves(reader, 2) == [(None, "pending"), *pairwise(up)]
        assert moves(reader, 1) == [("live", "draining"), ("draining", "standby")]
        writer = [data for _, _, data in reader.told("engine") if data["digest"] == wanted.engines["writer"]]
        assert [(data["from_state"], data["to_state"], data["phase"]) for data in writer] == [
            (None, "absent", None),
            ("absent", "absent", "loading"),
            ("absent", "absent", "running"),
            ("absent", "loaded", None),
        ]
        assert {data["name"] for data in writer} == {"writer"}
        ids = [number for number, _, _ in told]
        assert ids == sorted(set(ids))
        live = next(data for _, _, data in told if data.get("to_state") == "live")
        assert live == {
            "kind": "release", "number": 2, "name": "support", "from_state": "standby", "to_state": "live",
            "reason": None, "at": world.state.releases[2].entered["live"],
        }  # fmt: skip


# A release that fails says why.
async def test_a_failure():
    async with serving() as (world, _), following(app_of(world)) as (reader, _):
        world.controller.post(ev.Refused(at=0.0, change="bad", source="bad.yaml", reason="unknown key"))
        await asyncio.sleep(1)
        failed = next(data for _, _, data in reader.told("release") if data["to_state"] == "failed")
        assert (failed["number"], failed["name"], failed["reason"]) == (2, None, "unknown key")


# Where nothing happens a comment says every 15 s that the stream lives; it ends after its time.
async def test_keep_alive_and_end():
    async with serving() as (world, _), following(app_of(world)) as (reader, task):
        begun, begins = world.clock.now(), world.controller.feed._last
        await task
        assert reader.over
        assert world.clock.now() - begun == pytest.approx(events.LIFE_S, abs=0.1)
        assert reader.text.split("\n\n")[:2] == [f"id: {begins}\nretry: 1000", ": keep-alive"]


# A stream is no longer than a gateway that stops waits for its answers.
async def test_a_gateway_that_stops_soon():
    async with serving() as (world, _), following(app_of(world, drain_timeout_s=20.0)) as (reader, task):
        begun = world.clock.now()
        await task
        assert reader.over
        assert world.clock.now() - begun == pytest.approx(20.0, abs=0.1)


# Who comes again with the last id is told what came after it.
async def test_coming_again():
    async with serving() as (world, _):
        async with following(app_of(world)) as (first, _):
            await swap(world)
            seen = first.told()
        known = str(seen[2][0]).encode()
        async with following(app_of(world), headers=[(b"last-event-id", known)]) as (again, _):
            assert again.told()[: len(seen) - 3] == seen[3:]


# Who comes again with the newest id has the stream at once, and what happens next in it.
async def test_coming_again_when_nothing_has_happened():
    async with serving() as (world, _):
        async with following(app_of(world)) as (first, _):
            await swap(world)
            await asyncio.sleep(5)
            known = first.told()[-1][0]
        async with following(app_of(world), headers=[(b"last-event-id", str(known).encode())]) as (again, _):
            await asyncio.sleep(1)
            assert (again.status, again.told()) == (200, [])
            await swap(world, version=3)
            assert again.told()[0][0] == known + 1


# An id of none of ours replays nothing: it is told from now on.
@pytest.mark.parametrize("known", [b"9" * 64, b"-1", b"x", b""])
async def test_unknown_ids(known):
    header = (b"last-event-id", known)
    async with serving() as (world, _), following(app_of(world), headers=[header]) as (reader, _):
        assert (reader.status, reader.told()) == (200, [])
        await swap(world)
        assert moves(reader, 2)[0] == (None, "pending")


# Who comes again with the id of another manager is told that events are missing, then from now on.
@pytest.mark.parametrize("known", [b"7", b"9" * 18])
async def test_ids_of_another_manager(known):
    header = (b"last-event-id", known)
    async with serving() as (world, _), following(app_of(world), headers=[header]) as (reader, _):
        ((number, kind, data),) = reader.told()
        assert (reader.status, number, kind, data["code"]) == (
            200, world.controller.feed._last, "missed", "manager_gone",
        )  # fmt: skip
        await swap(world)
        assert moves(reader, 2)[0] == (None, "pending")


# Who comes again so late that what came next is not kept any more is told so.
async def test_coming_again_too_late():
    async with serving() as (world, _):
        world.controller.feed = feed = Feed(world.clock, 1, kept=5)
        world.controller._committed.observers = (feed.observe,)
        begins = str(feed._begins).encode()
        await swap(world)
        async with following(app_of(world), headers=[(b"last-event-id", begins)]) as (reader, _):
            ((number, kind, data),) = reader.told()
            assert (number, kind, data["code"]) == (feed._last, "missed", "read_too_slowly")
            assert reader.text.startswith(f"id: {feed._begins}\n")  # who is cut off before that is told again


# HEAD is answered with the head alone and ends there, whether or not its client hangs up: no place is taken.
async def test_head(monkeypatch):
    monkeypatch.setattr(events, "MOST", 1)
    async with serving() as (world, _):
        app = app_of(world)
        for _ in range(2):
            async with following(app, method="HEAD") as (reader, task):
                await asyncio.wait_for(task, 1)
                assert (reader.status, reader.text, reader.over) == (200, "", True)


# Who reads so slowly that what comes next is not kept any more is told so, and follows on from there.
async def test_a_slow_reader():
    async with serving() as (world, _):
        world.controller.feed = feed = Feed(world.clock, 1, kept=5)
        world.controller._committed.observers = (feed.observe,)
        async with following(app_of(world), pause=2.0) as (reader, task):
            await asyncio.sleep(5)
            await swap(world)
            await asyncio.sleep(15)
            number, kind, data = reader.told()[-1]
            assert (kind, data["code"]) == ("missed", "read_too_slowly")
            world.controller.post(ev.Refused(at=0.0, change="bad", source="bad.yaml", reason="unknown key"))
            await asyncio.wait_for(task, 60)
            assert next(known for known, _, data in reader.told() if data.get("number") == 3) > number


# Who takes nothing at all is hung up on, and its place is free again.
async def test_a_reader_that_stops(monkeypatch):
    monkeypatch.setattr(events, "MOST", 1)
    async with serving() as (world, _):
        app = app_of(world)
        async with following(app, pause=1e6) as (_, task):
            await asyncio.wait_for(task, events.LIFE_S + 10)
        async with following(app) as (reader, _):
            assert reader.status == 200


# A client that leaves takes its poll along and gives its place back; so many can follow, and no more.
async def test_clients_leave(monkeypatch):
    monkeypatch.setattr(events, "MOST", 2)
    async with serving() as (world, client):
        app = app_of(world)
        before = len(asyncio.all_tasks())
        async with following(app) as (first, task), following(app) as (second, _):
            async with following(app) as (third, _):
                assert (first.status, second.status, third.status) == (200, 200, 503)
                assert "2 clients follow" in json.loads(third.text)["error"]["message"]
            first.leaves.set()
            await task
            async with following(app) as (fourth, _):
                assert fourth.status == 200
        assert len(asyncio.all_tasks()) == before
        assert (await client.get("/healthz")).status_code == 200


# As the manager goes, the stream ends with an error; who comes again follows the next manager.
async def test_manager_restarts():
    async with serving() as (world, _):
        async with following(app_of(world)) as (reader, task):
            await world.stop_manager()
            await asyncio.wait_for(task, 1)
            _, kind, data = reader.told()[-1]
            assert (kind, data["error"]["code"], reader.over) == ("error", "manager_gone", True)
        async with following(app_of(world)) as (away, _):
            assert (away.status, away.over) == (503, True)
        world.start_manager()
        known = str(world.controller.feed._begins - 1).encode()
        async with following(app_of(world), headers=[(b"last-event-id", known)]) as (reader, _):
            await swap(world)
            assert moves(reader, 2)[-1] == ("standby", "live")
            assert min(number for number, _, _ in reader.told()) > int(known)


# A manager that has been replaced between two polls does not pass for the one before.
async def test_manager_is_replaced_between_polls():
    async with serving() as (world, _):
        answers = iter(
            [ChangeBatch(happened=[], last=5), ChangeBatch(happened=[], last=9, missed="manager_gone")]
        )
        asked = []

        async def changes(after):
            asked.append(after)
            return next(answers, None) or await asyncio.Future()

        world.manager.changes = changes
        async with following(app_of(world)) as (reader, _):
            ((number, kind, data),) = reader.told()
            assert (number, kind, data["code"], asked) == (9, "missed", "manager_gone", [None, 5, 9])


# A manager of before there were events refuses the call: so does the route.
async def test_manager_without_events():
    async with serving() as (world, client):

        async def changes(_after):
            raise EngineUnavailable("the manager has no call 'changes'")

        world.manager.changes = changes
        answer = await client.get("/admin/v1/events")
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "service_unavailable_error")


# Without the admin key nobody follows.
async def test_no_admin_key():
    async with serving(admin_key=KEY) as (_, client):
        assert (await client.get("/admin/v1/events")).status_code == 403


# The schema describes what the events hold, and the header that they are followed on with.
async def test_schema():
    async with serving() as (_, client):
        schema = (await client.get("/openapi.json")).json()
    told = schema["paths"]["/admin/v1/events"]["get"]
    form = told["responses"]["200"]["content"]["text/event-stream"]["schema"]
    assert [part["$ref"].split("/")[-1] for part in form["anyOf"]] == ["ReleaseChange", "EngineChange"]
    assert {"ReleaseChange", "EngineChange"} <= set(schema["components"]["schemas"])
    assert "last-event-id" in {parameter["name"] for parameter in told["parameters"]}
