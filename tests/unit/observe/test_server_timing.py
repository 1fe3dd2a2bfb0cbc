"""``Server-Timing``: valid, complete, and the same figures as the answer's own."""

import re
from dataclasses import replace

import pytest

from runtime.core.metering.latency import latency_of
from runtime.core.metering.usage import HopRecord, Usage
from runtime.errors import EngineUnavailable
from runtime.observe.server_timing import metric_name, server_timing
from tests.unit.api.test_api import ASK, events, post
from tests.unit.core.test_latency import STEPS, five_hops, hurry, serving
from tests.unit.world import document

_METRIC = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+);dur=(\d+\.\d{3})")


def read(header):
    """The metrics of a header, which must be valid from end to end."""
    matches = [_METRIC.fullmatch(part) for part in header.split(", ")]
    assert all(matches)
    assert len({match[1] for match in matches}) == len(matches)
    return {match[1]: float(match[2]) for match in matches}


def adds_up(metrics, steps):
    spent = sum(metrics[name] for name in ("admission", *steps, "gaps", "tail"))
    return spent == pytest.approx(metrics["total"], abs=0.01)


# A step's name is always a valid token, and never that of one of the gateway's own parts.
@pytest.mark.parametrize(
    ("step", "name"),
    [("triage", "triage"), ("a b;c", "a_b_c"), ("é", "_"), ("", "_"), ("total", "step.total")],
)
def test_metric_name(step, name):
    assert metric_name(step) == name


# Every hop is told with its queue and its first token, the gateway's parts beside them, the total last.
def test_value():
    hop = HopRecord("triage", "e", Usage(), 1.0, 2.5, 4.0, 1.0)
    value = server_timing(latency_of([hop], 0.5, 6.0), [hop])
    assert value == (
        "admission;dur=0.500, triage;dur=4.000, triage.queue;dur=1.000, triage.ttft;dur=2.500, "
        "gaps;dur=0.500, tail;dur=1.000, total;dur=6.000"
    )


# A whole answer has the header, which says what its body says.
async def test_header_of_a_whole_answer():
    async with serving(five_hops()) as (_, client):
        answer = await post(client)
        metrics, told = read(answer.headers["server-timing"]), answer.json()["interlock"]
        assert metrics["total"] == told["latency"]["total_ms"] == pytest.approx(2500.0)
        assert {step: metrics[step] for step in STEPS} == told["latency"]["steps_ms"]
        assert adds_up(metrics, STEPS)
        assert "server_timing" not in told


# A stream has it in its last chunk, for its headers were sent before.
@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
async def test_trailer_of_a_stream(options):
    async with serving(document(1)) as (_, client):
        answer = await post(client, stream=True, **options)
        told = events(answer)[-1]["interlock"]
        assert "server-timing" not in answer.headers
        assert read(told["server_timing"])["total"] == told["latency"]["total_ms"] == pytest.approx(435.0)
        assert adds_up(read(told["server_timing"]), ["triage", "answer"])


# A request that fails after hops have run tells where the time went, also to one who asked for a stream.
@pytest.mark.parametrize("stream", [False, True])
async def test_header_of_an_error(stream):
    async with serving(five_hops()) as (world, client):
        hurry(world, 1.2)
        answer = await post(client, stream=stream)
        metrics = read(answer.headers["server-timing"])
        assert answer.status_code == 504
        assert [metrics[step] for step in STEPS[:3]] == pytest.approx([500.0, 500.0, 200.0])
        assert metrics["total"] == pytest.approx(1200.0)
        assert adds_up(metrics, STEPS[:3])
        assert "fourth" not in metrics


# So does one that breaks while the last hop's whole answer is awaited, beside the release that served.
async def test_header_of_an_error_in_the_last_hop():
    async with serving(document(1)) as (world, client):
        await world.cluster.delete(world.state.live.content.engines["writer"])
        answer = await post(client)
        assert answer.status_code == 503
        assert list(read(answer.headers["server-timing"]))[:2] == ["admission", "triage"]


class Breaking:
    """An engine's client whose answer breaks after its first part."""

    def __init__(self, engine):
        self._engine = engine

    async def generate(self, body):
        async for chunks in self._engine.generate(body):
            yield chunks
        raise EngineUnavailable("the answer broke")

    async def spent(self, hop):
        return None


# So does one whose whole answer breaks in the middle, beside the release that served.
async def test_header_of_a_broken_answer():
    async with serving(document(1)) as (world, client):
        routing = world.gateways[0].follower.routing
        clients = routing.live.clients
        broken = replace(routing.live, clients={**clients, "writer": Breaking(clients["writer"])})
        routing.hold(broken)
        answer = await post(client)
        assert (answer.status_code, answer.headers["x-interlock-release"]) == (503, "1")
        assert adds_up(read(answer.headers["server-timing"]), ["triage", "answer"])


# A stream that breaks tells it in the error's event.
async def test_trailer_of_a_broken_stream():
    async with serving(document(1)) as (world, client):
        hurry(world, 0.2)
        last = events(await post(client, stream=True))[-1]
        assert last["error"]["type"] == "timeout_error"
        assert last["interlock"]["latency"]["total_ms"] == pytest.approx(200.0)
        assert adds_up(read(last["interlock"]["server_timing"]), ["triage", "answer"])


# An answer to which no hop has contributed has no such header.
async def test_no_hops_no_header():
    async with serving(document(1)) as (_, client):
        for answer in (await post(client, model="agnet"), await post(client, temperature="hot")):
            assert answer.status_code in (400, 404)
            assert "server-timing" not in answer.headers


# Neither has one whose chain could not begin: its first prompt is about a message that is not there.
async def test_no_first_hop_no_header():
    wants_two = five_hops(samples=[{"messages": [*ASK["messages"]] * 2}])
    wants_two["chains"]["agent"]["steps"][0]["generate"]["prompt"] = "{{ messages[1].content }}"
    async with serving(wants_two) as (_, client):
        answer = await post(client)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert "server-timing" not in answer.headers
