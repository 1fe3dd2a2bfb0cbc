"""Whoever stops ends its answers first: long streams outlive every way in which gateways are replaced."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from benchmarks.parts.local_cluster import HAPROXY, LocalCluster, haproxy_settings
from tests.cluster import ROOT, Deployed
from tests.ray.conftest import scripted

TOKENS, PACE_S = 100, 0.45
STREAMS = 4

HUNG_UP = 0
"""A connection that was closed without an answer."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


class Interlock(Deployed):
    """One whose replicas can be restarted by a new runtime environment."""

    def __init__(self, cluster, gateways, model_set):
        super().__init__(cluster, gateways)
        self.model_set, self.variables = model_set, {}

    def config(self, model_set):
        config = super().config(model_set)
        config["applications"][0]["runtime_env"] = {"env_vars": self.variables}
        return config


@pytest.fixture(params=[False, True], ids=["proxy", "haproxy"])
def interlock(request):
    cluster = LocalCluster(ROOT)
    if request.param:
        cluster.env |= {HAPROXY: "1"} | haproxy_settings(cluster.folder)
    with cluster:
        model_set = cluster.folder / "set.yaml"
        slow = scripted(0, tokens=TOKENS, inter_token=f"{PACE_S * 1000:g}ms")
        slow["chains"]["support-agent"]["deadline"] = "60s"
        slow["chains"]["support-agent"]["samples"][0]["params"] = {"max_tokens": 2}
        model_set.write_text(yaml.safe_dump(slow))
        deployed = Interlock(cluster, 2, model_set)
        done = deployed.deploy_and_wait(model_set, timeout=90)
        assert done.returncode == 0, done.stderr
        yield deployed
        deployed.close()


def stream(url):
    """Return how a long stream has ended: how many events it had, and its last."""
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=70, trust_env=False) as answer:
        events = [line for line in answer.iter_lines() if line.startswith("data: ")]
        return answer.status_code, len(events), events[-1]


class Asking:
    """Asks for something short twice a second, and keeps every answer that was none."""

    def __init__(self, deployed):
        self.failed, self.asked = [], 0
        self._deployed, self._over = deployed, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _ask(self):
        body = {
            "model": "support-agent",
            "messages": [{"role": "user", "content": "my bill"}],
            "max_tokens": 2,
        }
        while not self._over.wait(0.5):
            self.asked += 1
            answer = httpx.post(
                f"{self._deployed.url}/v1/chat/completions", json=body, timeout=30, trust_env=False
            )
            if not answer.is_success:
                self.failed.append((time.monotonic(), answer.status_code, answer.text[:200]))


# A stream of 45 s outlives fewer gateways, other settings, and a deployment of everything anew.
def test_long_streams_outlive_their_gateways(interlock):
    with ThreadPoolExecutor(3 * STREAMS) as clients, Asking(interlock) as asking:

        def begin():
            begun = [clients.submit(stream, interlock.url) for _ in range(STREAMS)]
            time.sleep(3)
            return begun

        streams = begin()
        interlock.gateways = 1
        interlock.deploy(interlock.model_set)
        streams += begin()
        interlock.settings = {"heartbeat_s": 0.9}
        interlock.deploy(interlock.model_set)
        time.sleep(12)  # both the old and the new ones are at work by now
        streams += begin()
        interlock.variables = {"ANOTHER": "version"}
        interlock.deploy(interlock.model_set)
        ended = [each.result() for each in streams]
    assert ended == [(200, ended[0][1], "data: [DONE]")] * (3 * STREAMS)
    assert ended[0][1] > TOKENS
    assert asking.asked > 30
    assert not asking.failed


# What a killed gateway had under way ends at once in an error; what comes once it is gone is answered.
def test_a_gateway_that_is_killed(interlock, request):
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], "max_tokens": 20}

    def ask(**changes):
        url, asked = f"{interlock.url}/v1/chat/completions", body | changes
        try:
            return httpx.post(url, json=asked, timeout=70, trust_env=False).status_code
        except httpx.RemoteProtocolError:
            return HUNG_UP

    with ThreadPoolExecutor(8) as clients:
        under_way = [clients.submit(ask) for _ in range(8)]
        time.sleep(3)
        gateway = interlock.replicas("interlock", "Gateway")[0]
        gateway.kill()
        gateway.wait(10)  # as it goes, its socket still takes connections
        began = time.monotonic()
        later = [ask(max_tokens=2) for _ in range(8)]
        took = time.monotonic() - began
        statuses = sorted(each.result() for each in under_way)
    expected = {HUNG_UP, 500} if "haproxy" in request.node.name else {500}
    lost = [status for status in statuses if status != 200]
    assert 0 < len(lost) < len(statuses)
    assert set(lost) <= expected
    assert later == [200] * 8
    assert took < 20
