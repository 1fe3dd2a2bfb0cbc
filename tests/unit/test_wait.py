"""`interlock wait`: when a model set counts as live."""

import time

import httpx
import pytest

from runtime.cli import wait
from runtime.cli.client import AdminClient
from runtime.errors import CommandError
from runtime.settings import Settings


class Gateway:
    """A gateway whose release is as told, and which becomes ready at the second time that it is asked."""

    def __init__(self, outcome):
        self.outcome, self.asked = outcome, 0

    def __call__(self, request):
        if request.url.path == "/readyz":
            self.asked += 1
            return httpx.Response(200 if self.asked == 2 else 503)
        wanted = {"release": 1, "outcome": self.outcome}
        shown = {"edition": 1, "revision": 1, "live": None, "releases": [], "engines": [], "gateways": []}
        return httpx.Response(200, json=shown | {"wanted": wanted})


def waited(gateway, monkeypatch, seconds=30.0):
    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    client = AdminClient(Settings(), "http://gateway", httpx.MockTransport(gateway))
    return wait.wait_for(client, lambda _: True, time.monotonic() + seconds, lambda seen, times: None)


# A release that is live by the journal while its engines come up again is waited for.
def test_live_is_ready(monkeypatch):
    gateway = Gateway("live")
    assert waited(gateway, monkeypatch)["wanted"]["outcome"] == "live"
    assert gateway.asked == 2


# What has failed is told at once, whatever the gateway is ready for.
def test_failed_waits_for_nothing(monkeypatch):
    gateway = Gateway("failed")
    assert waited(gateway, monkeypatch)["wanted"]["outcome"] == "failed"
    assert gateway.asked == 0


# Who waits in vain is told what was seen last.
def test_not_ready_in_time(monkeypatch):
    with pytest.raises(CommandError, match="the gateway is not ready yet"):
        waited(Gateway("live"), monkeypatch, seconds=-1.0)
