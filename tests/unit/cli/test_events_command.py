"""`interlock events`: what happens, a line each, from one gateway or manager to the next."""

import json
from functools import partial

import httpx
import pytest
from typer.testing import CliRunner

from runtime.cli import client as cli_client
from runtime.cli.client import AdminClient
from runtime.cli.events import line_of
from runtime.cli.main import app
from runtime.core.views.changes import EngineChange, ReleaseChange

LIVE = ReleaseChange(
    kind="release", number=2, name="set", from_state="standby", to_state="live", reason=None, at=1.5
)
LOADS = EngineChange(
    kind="engine", digest="a" * 64, name="writer", from_state="absent", to_state="absent", phase="loading",
    reason=None, at=1.5,
)  # fmt: skip
ERROR = {
    "error": {"message": "the manager has gone", "type": "service_unavailable_error", "code": "manager_gone"}
}


def event(number, change):
    return f"id: {number}\nevent: {change.kind}\ndata: {json.dumps(change.as_json())}\n\n"


class Gateway:
    """Answers with one stream after another, then interrupts who asks."""

    def __init__(self, *streams):
        self._streams = list(streams)
        self.known = []

    def __call__(self, request):
        self.known.append(request.headers.get("last-event-id"))
        if not self._streams:
            raise KeyboardInterrupt
        told = self._streams.pop(0)
        if isinstance(told, int):
            return httpx.Response(told, text="no")
        return httpx.Response(200, text=told, headers={"content-type": "text/event-stream; charset=utf-8"})


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(cli_client, "_AGAIN_S", 0.0)

    def with_gateway(gateway, *options):
        client = partial(AdminClient, transport=httpx.MockTransport(gateway))
        monkeypatch.setattr("runtime.cli.events.AdminClient", client)
        return CliRunner().invoke(app, ["events", *options])

    return with_gateway


# A stream that ends is followed on from its last event; comments are no events.
def test_follows_on(run):
    gateway = Gateway("retry: 1000\n\n: keep-alive\n\n" + event(7, LIVE), "retry: 1000\n\n" + event(8, LOADS))
    done = run(gateway, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [LIVE.as_json(), LOADS.as_json()]
    assert gateway.known == [None, "7", "8"]
    assert done.exit_code == 130


# When the manager goes, stderr says so, and the next one is followed; so when a gateway is away for a while.
def test_manager_goes(run):
    gone = f"event: error\ndata: {json.dumps(ERROR)}\n\n"
    gateway = Gateway("retry: 1000\n\n" + event(7, LIVE) + gone, 503, event(1_000_001, LOADS))
    done = run(gateway)
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == [
        "release 2 set: standby -> live",
        f"engine writer {'a' * 12}: absent; loading",
    ]
    assert "events may be missing: the manager has gone" in done.stderr


# What is missing is told of on stderr, and followed on after.
def test_missed(run):
    missed = 'id: 9\nevent: missed\ndata: {"code": "read_too_slowly", "message": "too late"}\n\n'
    gateway = Gateway(event(7, LIVE), missed + event(10, LOADS))
    done = run(gateway, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [LIVE.as_json(), LOADS.as_json()]
    assert "events are missing: too late" in done.stderr.splitlines()
    assert gateway.known == [None, "7", "10"]


# Where nobody answers at first, that is an error.
def test_nobody_answers(run):
    done = run(Gateway(503))
    assert (done.exit_code, done.stdout) == (1, "")


# A line says what has come, what has gone, and the first line of a reason.
def test_lines():
    came = LIVE.model_copy(
        update={"from_state": None, "to_state": "failed", "name": None, "reason": "why\nmore"}
    )
    gone = LOADS.model_copy(update={"to_state": None, "from_state": "unloading", "phase": None, "name": ""})
    assert line_of(came).endswith(" release 2: failed; why")
    assert line_of(gone).endswith(f" engine {'a' * 12}: unloading -> gone")
