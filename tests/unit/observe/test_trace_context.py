"""The trace that a client sends: what is one, who is told of it, and what is left out of it."""

from tests.unit.api.test_api import post, serving
from tests.unit.observe.test_tracing import PARENT, SAMPLED, TRACE, Traced, ask, engine_traces

NO_CONTEXTS = [
    {},
    {"traceparent": "my bill"},
    {"traceparent": f"ff-{TRACE}-{PARENT}-01"},
    {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
    {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
    {"traceparent": f"00-{TRACE}-{PARENT}-01\u00b9"},
    {"traceparent": f"00-{TRACE.upper()}-{PARENT}-01"},
    {"tracestate": "vendor=opaque"},
]


# What is no trace context is none: the request begins a trace, and no engine ever sees what was sent.
async def test_what_is_no_context():
    sent = [{name: value.encode("latin-1") for name, value in each.items()} for each in NO_CONTEXTS]
    async with serving() as (world, client):
        for context in sent:
            assert (await ask(client, context)).status_code == 200
        assert not any(engine_traces(world).values())
        traced = Traced(world)
        for context in sent:
            assert (await ask(client, context)).status_code == 200
            assert traced.one()[0].parent is None
            traced.forget()
        assert all("tracestate" not in each for told in engine_traces(world).values() for each in told)


# A trace state that is longer than the standard lets it be, or that no header may be, is left out.
async def test_what_is_no_state():
    async with serving() as (world, client):
        for state in ("v=" + "x" * 511, "v=\u00e9"):
            await ask(client, SAMPLED | {"tracestate": state.encode("latin-1")})
        assert engine_traces(world)["writer"] == [{"traceparent": SAMPLED["traceparent"]}] * 2


# While tracing is off, engines that trace by themselves come beneath the client's own span.
async def test_contexts_go_on_while_it_is_off():
    async with serving() as (world, client):
        await ask(client)
        await post(client)
        assert engine_traces(world) == {"router": [SAMPLED], "writer": [SAMPLED]}


# What a client writes into its body under the name of what engines are told is not told to them.
async def test_a_body_tells_no_context():
    async with serving() as (world, client):
        await ask(client, {}, interlock_trace=SAMPLED | {"x-other": "header"})
        assert not any(engine_traces(world).values())
