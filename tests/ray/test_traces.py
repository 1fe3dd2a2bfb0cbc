"""Traces of a gateway on a real cluster: what it has not exported yet when it stops, it exports then."""

import time

import httpx
import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster
from tests.cluster import ROOT, Deployed
from tests.collector import collector
from tests.ray.conftest import scripted

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collected():
    with collector() as started:
        yield started


@pytest.fixture
def traced(collected, monkeypatch):
    """Interlock whose gateway exports only when it stops."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.address)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with LocalCluster(ROOT) as cluster:
        deployed = Deployed(cluster, gateways=1)
        path = cluster.folder / "v0.yaml"
        path.write_text(yaml.safe_dump(scripted(0)))
        deployed.swap_to(path, seconds=90)
        yield deployed
        deployed.close()


# The standard's variable on the Ray nodes is all that it takes; a stream's spans are in its client's trace,
# and a gateway that is taken away loses none of them.
def test_spans_of_a_gateway_that_stops(traced, collected):
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], "stream": True}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with httpx.stream(
        "POST", f"{traced.url}/v1/chat/completions", json=body, headers=headers, trust_env=False
    ) as s:
        assert s.read().endswith(b"data: [DONE]\n\n")
    assert collected.spans == []
    assert traced.cluster.api("DELETE", "/api/serve/applications/").is_success
    end = time.monotonic() + 30.0  # deleting goes on after its answer
    while len(collected.spans) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    names = {span.name: span for span in collected.spans}
    assert set(names) == {"classify router", "chat writer", "invoke_workflow support-agent"}
    assert names["invoke_workflow support-agent"].parent_span_id.hex() == PARENT
    assert {span.trace_id.hex() for span in collected.spans} == {TRACE}
    assert collected.resources[0]["service.instance.id"].startswith("gateway-")
