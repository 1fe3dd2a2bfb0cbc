"""Traces: a span per request and per hop, beneath the client's, above the engine's; off unless asked for."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from runtime.core.budgets.budget import Cap, CapKind, Per, Unit, Window
from runtime.core.requests.ask import Ask
from runtime.core.requests.keys import Caller
from runtime.errors import EngineLost
from runtime.observe import trace_names
from runtime.observe.otel import OtelTracer
from runtime.store.tables import LEDGER
from runtime.testing.model_sets import content_of
from runtime.walking.context import RequestContext
from tests.unit.api.test_api import ASK, app_of, events, post, serving
from tests.unit.core.test_latency import hurry
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World, document

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=opaque"}
NAMES = {value for value in vars(trace_names).values() if isinstance(value, str)}


class Traced:
    """What is exported of one gateway's requests."""

    def __init__(self, world):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        world.gateways[0].admission._tracer = OtelTracer(self.provider, world.clock)

    def spans(self):
        return self._exporter.get_finished_spans()

    def forget(self):
        self._exporter.clear()

    def one(self):
        """The only request's span, and its hops' in their order."""
        (request,) = (span for span in self.spans() if span.kind is SpanKind.SERVER)
        hops = [span for span in self.spans() if span.kind is SpanKind.CLIENT]
        assert all(hop.parent == request.context for hop in hops)
        assert len(self.spans()) == 1 + len(hops)
        return request, *hops


@contextlib.asynccontextmanager
async def tracing(**options):
    """A gateway whose requests are traced, and a client of it."""
    async with serving(**options) as (world, client):
        yield world, client, Traced(world)


async def ask(client, context=SAMPLED, **changes):
    return await client.post("/v1/chat/completions", json=ASK | changes, headers=context)


def engine_traces(world):
    """The contexts that each engine of the live release was told, by its name in the model set."""
    engines = world.state.live.content.engines
    told = {name: world.cluster._replicas(digest) for name, digest in engines.items()}
    return {name: [trace for each in replicas for trace in each.traces] for name, replicas in told.items()}


def milliseconds(span):
    return (span.end_time - span.start_time) / 1e6


# A request is one span beneath its client's, and each hop is one beneath it, named and measured as the
# answer itself says it was, streamed or not.
@pytest.mark.parametrize("stream", [False, True])
async def test_spans_of_a_request(stream):
    async with tracing() as (world, client, traced):
        asked = world.clock.wall()
        answer = await ask(client, SAMPLED | {"x-request-id": "mine"}, stream=stream)
        told = (events(answer)[-1] if stream else answer.json())["interlock"]
        request, *hops = traced.one()
        assert (request.context.trace_id, request.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
        assert [span.name for span in (request, *hops)] == [
            "invoke_workflow agent",
            "classify router",
            "chat writer",
        ]
        assert request.start_time == pytest.approx(asked * 1e9, abs=1e3)
        assert milliseconds(request) == pytest.approx(told["latency"]["total_ms"], abs=0.01)
        for span, hop in zip(hops, told["hops"], strict=True):
            assert (span.start_time - request.start_time) / 1e6 == pytest.approx(hop["start_ms"], abs=0.01)
            assert milliseconds(span) == pytest.approx(hop["duration_ms"], abs=0.01)
            assert span.attributes["interlock.step"] == hop["step"]
            assert span.attributes["interlock.engine"] == hop["engine"]
            assert span.attributes["interlock.queue_ms"] == pytest.approx(hop["queue_ms"], abs=0.01)
            assert span.attributes["interlock.ttft_ms"] == pytest.approx(hop["ttft_ms"], abs=0.01)
            assert span.attributes["gen_ai.usage.input_tokens"] == hop["prompt_tokens"]
            assert span.attributes["gen_ai.usage.output_tokens"] == hop["completion_tokens"]
            assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == hop["cached_tokens"]
        first = told["hops"][1]["start_ms"] + told["hops"][1]["ttft_ms"]
        assert request.attributes["interlock.ttft_ms"] == pytest.approx(first, abs=0.01)
        seconds = request.attributes.get("gen_ai.response.time_to_first_chunk")
        assert seconds == (pytest.approx(first / 1000.0, abs=1e-5) if stream else None)
        assert request.attributes["interlock.request_id"] == "mine"
        assert request.attributes["interlock.release"] == 1
        assert request.attributes["interlock.model_set"] == world.state.live.content.digest
        assert request.attributes["gen_ai.usage.output_tokens"] == 20
        assert all(span.attributes["interlock.outcome"] == "ok" for span in (request, *hops))
        assert all(span.status.status_code is StatusCode.UNSET for span in (request, *hops))


# Whatever is told, is told by a name of the one module that has them.
async def test_names():
    async with tracing() as (_, client, traced):
        await ask(client, stream=True)
        assert {name for span in traced.spans() for name in span.attributes} <= NAMES


# A hop's span leads to its row in the ledger.
async def test_hops_are_found_in_the_ledger():
    async with tracing() as (world, client, traced):
        await ask(client)
        with world.ledger._engine.connect() as connection:
            rows = dict(connection.execute(sa.select(LEDGER.c.step, LEDGER.c.hop)).all())
        _, *hops = traced.one()
        assert {hop.attributes["interlock.step"]: hop.attributes["interlock.hop"] for hop in hops} == rows


# A client gets the same bytes and headers whether its request is traced or not.
@pytest.mark.parametrize("stream", [False, True])
async def test_answers_are_the_same(stream):
    async def answer(client):
        told = await ask(client, SAMPLED | {"x-request-id": "mine"}, stream=stream)
        objects = events(told) if stream else [told.json()]
        return told.headers, [{**each, "created": 0} for each in objects]

    async with serving() as (_, client):
        plain = await answer(client)
    async with tracing() as (_, client, traced):
        assert await answer(client) == plain
        assert traced.spans()


# An engine is told its hop's span as the parent of its own, and the client's trace state with it.
async def test_engines_are_told():
    async with tracing() as (world, client, traced):
        await ask(client)
        _, *hops = traced.one()
        for name, hop in zip(("router", "writer"), hops, strict=True):
            parent = f"00-{TRACE}-{hop.context.span_id:016x}-01"
            assert engine_traces(world)[name] == [{"traceparent": parent, "tracestate": "vendor=opaque"}]


# Of a trace that its client does not sample nothing is exported, and engines are told that, too.
async def test_unsampled():
    async with tracing() as (world, client, traced):
        answer = await ask(client, {"traceparent": f"00-{TRACE}-{PARENT}-00"}, stream=True)
        assert answer.status_code == 200
        assert traced.spans() == ()
        for (told,) in engine_traces(world).values():
            assert told["traceparent"].startswith(f"00-{TRACE}-")
            assert told["traceparent"].endswith("-00")


# Requests at the same time do not get into each other's traces; one that comes with none begins one.
async def test_traces_do_not_mix():
    async with tracing() as (_, client, traced):
        parents = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 21)]
        await asyncio.gather(*(ask(client, {"traceparent": each}) for each in parents), post(client))
        requests = [span for span in traced.spans() if span.kind is SpanKind.SERVER]
        given = {span.context.trace_id: span.parent for span in requests}
        assert [given[n].span_id for n in range(1, 21)] == list(range(1, 21))
        assert [parent for trace, parent in given.items() if trace > 20] == [None]
        for span in requests:
            hops = [each for each in traced.spans() if each.parent == span.context]
            assert {hop.context.trace_id for hop in hops} == {span.context.trace_id}
            assert len(hops) == 2


HERE = {"host": "localhost", "content-type": "application/json"}


async def leave(world, stream, after):
    """One request whose client goes away ``after`` so many seconds."""
    raw = json.dumps(ASK | {"stream": stream}).encode()
    inbox = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive():
        if inbox:
            return inbox.pop()
        await asyncio.sleep(after)
        return {"type": "http.disconnect"}

    async def send(_):
        pass

    headers = [(name.encode(), value.encode()) for name, value in (HERE | SAMPLED).items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    await app_of(world)(scope | {"headers": headers, "client": ("127.0.0.1", 1)}, receive, send)


# A client that goes away, at whatever moment, is no error: its spans end then, with what was spent.
@pytest.mark.parametrize(("after", "outcomes"), [(0.002, ["cancelled"]), (0.2, ["ok", "cancelled"])])
@pytest.mark.parametrize("stream", [False, True])
async def test_disconnect(after, outcomes, stream):
    async with tracing() as (world, _, traced):
        await leave(world, stream, after)
        request, *hops = traced.one()
        assert [span.attributes["interlock.outcome"] for span in hops] == outcomes
        assert request.attributes["interlock.outcome"] == "cancelled"
        assert all(span.status.status_code is StatusCode.UNSET for span in (request, *hops))
        assert all("error.type" not in span.attributes for span in (request, *hops))
        assert milliseconds(request) == pytest.approx(after * 1000.0, abs=0.01)
        assert hops[-1].end_time <= request.end_time
        (spent,) = world.ledger.usage("chain", world.clock.wall() - 1.0)
        told = request.attributes
        assert told["gen_ai.usage.input_tokens"] == spent["prompt_tokens"] > 0
        assert told["gen_ai.usage.output_tokens"] == spent["completion_tokens"]


def failed(span, kind, outcome="error"):
    """Say whether a span has ended with an error of ``kind``, and with nothing of what it says."""
    told = span.status.status_code, span.attributes["error.type"], span.attributes["interlock.outcome"]
    return told == (StatusCode.ERROR, kind, outcome) and span.status.description is None and not span.events


# An engine's fault is its hop's and its request's, before the first byte and in mid-stream.
@pytest.mark.parametrize("after", [0.0, 0.2])
async def test_fault_of_an_engine(after):
    async with tracing() as (world, client, traced):
        asking = asyncio.create_task(ask(client, stream=True))
        await asyncio.sleep(after)
        await world.cluster.delete(world.state.live.content.engines["writer"])
        await asking
        request, routed, wrote = traced.one()
        assert failed(request, "EngineUnavailable")
        assert failed(wrote, "EngineUnavailable")
        assert routed.status.status_code is StatusCode.UNSET
        for span in (request, wrote):
            assert ("interlock.ttft_ms" in span.attributes) == (after > 0.0)


# A deadline that passes has an outcome of its own.
async def test_deadline():
    async with tracing() as (world, client, traced):
        hurry(world, 0.2)
        assert (await ask(client)).status_code == 504
        request, _, wrote = traced.one()
        assert failed(request, "DeadlineExceeded", "deadline")
        assert failed(wrote, "DeadlineExceeded", "deadline")


# What is refused before its first hop is a span, too; a chain that does not exist is no name of one.
async def test_refused():
    async with tracing() as (_, client, traced):
        for changes, kind in (({"model": "agnet"}, "UnknownModel"), ({"messages": []}, "InvalidRequest")):
            await ask(client, **changes)
            (request,) = traced.one()
            assert failed(request, kind)
            assert request.name == "invoke_workflow"
            traced.forget()


# A bug ends its spans as errors, too.
async def test_bug(monkeypatch):
    async with tracing() as (world, client, traced):
        monkeypatch.setattr(world.gateways[0].admission, "admit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await ask(client)
        (request,) = traced.one()
        assert failed(request, "ZeroDivisionError")


class Mortal:
    """A client of an engine whose first replica is lost before it answers."""

    def __init__(self, client):
        self._client = client
        self._lost = False

    def _lose(self):
        if not self._lost:
            self._lost = True
            raise EngineLost("gone: my bill")

    async def generate(self, body):
        self._lose()
        async with contextlib.aclosing(self._client.generate(body)) as answer:
            async for chunks in answer:
                yield chunks

    async def classify(self, body):
        self._lose()
        return await self._client.classify(body)


# A hop that another replica is asked for is one span, in which that is an event.
@pytest.mark.parametrize(("engine", "number"), [("router", 1), ("writer", 2)])
async def test_retry(engine, number):
    async with tracing() as (world, client, traced):
        routing = world.gateways[0].follower.routing
        clients = {**routing.live.clients, engine: Mortal(routing.live.clients[engine])}
        routing.hold(replace(routing.live, clients=clients))
        assert (await ask(client)).status_code == 200
        spans = traced.one()
        (event,) = spans[number].events
        assert (event.name, dict(event.attributes)) == ("retry", {"error.type": "EngineLost"})
        assert event.timestamp == spans[number].start_time
        assert milliseconds(spans[number]) > 500.0
        assert spans[number].attributes["interlock.hop"].endswith("-again")
        assert sum(len(span.events) for span in spans) == 1


# Spans tell whose a request is; nothing of what it asks, of what is answered, and of the key it comes with.
async def test_nothing_secret():
    keys = memory_keys()
    async with tracing(keys=keys) as (_, client, traced):
        made = (await client.post("/admin/v1/keys", json={"tenant": "acme"})).json()
        client.headers["authorization"] = f"Bearer {made['key']}"
        for changes in (
            {},
            {"stop": "my bill", "temperature": "my bill"},
            {"top_k": "my bill", "n": "my bill"},
        ):
            await ask(client, **changes)
            written = "".join(span.to_json() for span in traced.spans())
            assert ('"interlock.tenant": "acme"' in written) == (not changes)
            for secret in ("my bill", "v1-", made["key"], made["id"]):
                assert secret not in written
            traced.forget()
    keys.engine.dispose()


# A request that another chain answers says which one was asked for.
async def test_degraded():
    declared = document(1, writer={"load": "10ms", "tokens": 6})
    chains = declared["chains"]
    short = [{"id": "answer", "generate": {"engine": "writer", "prompt": "be short"}}]
    chains["short"] = {**chains["agent"], "steps": short}
    chains["agent"]["degrade_to"] = "short"
    async with World(gateways=1) as world:
        budget = Cap(0, "acme", "", Per.TENANT, Unit.TOKENS, Window.TOTAL, 11, CapKind.BUDGET)
        world.budgets.set(budget)
        world.want(content_of(declared))
        await world.until_live(content_of(declared))
        traced, gateway = Traced(world), world.gateways[0].admission
        span = gateway.span("r", SAMPLED, gateway.arrival())
        context = RequestContext("r", gateway.arrival(), Caller("acme", "k"), span=span)
        with context.traced():
            call = await gateway.admit(Ask("agent", ASK["messages"], {"max_tokens": 6}), context)
            await call.aclose()
        (request,) = traced.one()
        assert request.name == "invoke_workflow short"
        assert request.attributes["gen_ai.agent.name"] == "short"
        assert request.attributes["interlock.degraded_from"] == "agent"
