"""`interlock wait`: when a model set counts as live."""

import time
from functools import partial

import httpx
import pytest
from typer.testing import CliRunner

from runtime.cli import wait
from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.errors import CommandError
from runtime.settings import Settings


class Gateway:
    """A gateway whose release is as told, and which becomes ready at the second time that it is asked."""

    def __init__(self, outcome, state="live", *, held=False):
        self.outcome, self.asked = outcome, 0
        release = {"number": 1, "source": "v1.yaml", "outcome": outcome, "reason": None}
        self.releases = [release | {"state": state, "held": held}]

    def __call__(self, request):
        if request.url.path == "/readyz":
            self.asked += 1
            return httpx.Response(200 if self.asked == 2 else 503)
        wanted = {"release": 1, "source": "v1.yaml", "change": "c", "outcome": self.outcome, "reason": None}
        shown = {"edition": 1, "revision": 1, "live": None, "engines": [], "gateways": []}
        return httpx.Response(200, json=shown | {"releases": self.releases, "wanted": wanted})


def waited(gateway, monkeypatch, seconds=30.0):
    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    client = AdminClient(Settings(), "http://gateway", httpx.MockTransport(gateway))
    _, wanted = wait.wait_for(client, lambda _: True, time.monotonic() + seconds, lambda seen, times: None)
    return wanted


# A release that is live by the journal while its engines come up again is waited for.
def test_live_is_ready(monkeypatch):
    gateway = Gateway("live")
    assert waited(gateway, monkeypatch).outcome == "live"
    assert gateway.asked == 2


# What has failed is told at once, whatever the gateway is ready for.
def test_failed_waits_for_nothing(monkeypatch):
    gateway = Gateway("failed")
    assert waited(gateway, monkeypatch).outcome == "failed"
    assert gateway.asked == 0


# A release that waits for an operator is waited for no longer: what to do is told, with an own exit code.
def test_held_is_told_at_once(monkeypatch):
    gateway = Gateway("in progress", state="standby", held=True)
    monkeypatch.setattr(
        "runtime.cli.wait.AdminClient", partial(AdminClient, transport=httpx.MockTransport(gateway))
    )
    done = CliRunner().invoke(app, ["wait"])
    assert (done.exit_code, gateway.asked) == (5, 0)
    assert done.stdout == (
        "release 1 from v1.yaml is up and held, for its cutover is manual; "
        "to make it live: interlock promote 1\n"
    )


# The command says what it has waited for, and ends with 0.
def test_live_is_told(monkeypatch):
    transport = httpx.MockTransport(Gateway("live"))
    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    monkeypatch.setattr("runtime.cli.wait.AdminClient", partial(AdminClient, transport=transport))
    done = CliRunner().invoke(app, ["wait"])
    assert (done.exit_code, done.stdout) == (0, "release 1 from v1.yaml is live\n")


# Who waits in vain is told what was seen last.
def test_not_ready_in_time(monkeypatch):
    with pytest.raises(CommandError, match="the gateway is not ready yet"):
        waited(Gateway("live"), monkeypatch, seconds=-1.0)
