import asyncio
import contextlib
import dataclasses

import pytest

from runtime.core.metering.usage import total
from runtime.core.requests.ask import Ask
from runtime.core.requests.messages import last_user_text
from runtime.core.walk.call import Choice, Text
from runtime.core.walk.chain import Chain
from runtime.core.walk.walk import Walk
from runtime.errors import DeadlineExceeded, EngineUnavailable, InvalidRequest, WrongEngine
from runtime.testing.model_sets import content_of
from tests.unit.world import World, content, document

MESSAGES = [{"role": "user", "content": "my bill"}]
CHAIN = Chain.model_validate(
    {
        "steps": [
            {"id": "triage", "route": {"engine": "router", "choices": {"a": ["x"], "b": ["y"]}}},
            {"id": "draft", "generate": {"engine": "writer", "sampling": {"max_tokens": 9}}},
            {
                "id": "answer",
                "generate": {
                    "engine": "writer",
                    "prompt": "{{ steps.triage.choice }}: {{ steps.draft.text }} / {{ input }}",
                    "sampling": {"temperature": 0.5, "max_tokens": 7},
                },
            },
        ],
        "answer": "answer",
        "samples": [{"messages": MESSAGES}],
    }
)


def walk(params):
    """Walk CHAIN with made-up results; return its calls."""
    run, calls = Walk(CHAIN, MESSAGES, params), []
    for result in (Choice("b", {}), Text("a draft"), Text("done")):
        (call,) = run.ready()
        calls.append(call)
        run.record(call, result)
    assert not run.ready()
    return calls


# A prompt sees what earlier steps gave, and goes before the conversation.
def test_prompt_sees_earlier_steps():
    answer = walk({})[2]
    assert answer.body["messages"][0] == {"role": "system", "content": "b: a draft / my bill"}
    assert answer.body["messages"][1:] == MESSAGES


# A step whose result is given is not called, and prompts see the result all the same.
def test_a_given_step_is_not_called():
    run = Walk(CHAIN, MESSAGES, {}, {"triage": Choice("a", {}), "answer": Text("given")})
    (draft,) = run.ready()
    assert draft.step == "draft"
    run.record(draft, Text("a draft"))
    assert not run.ready()
    assert run.step is None
    only = Walk(CHAIN, MESSAGES, {}, {"triage": Choice("a", {}), "draft": Text("given")})
    (answer,) = only.ready()
    assert answer.body["messages"][0]["content"] == "a: given / my bill"


# The client's sampling parameters reach the last step, override its own, and no other step.
def test_parameters_reach_the_last_step_alone():
    triage, draft, answer = walk({"temperature": 1.0, "top_k": 5, "n": None})
    assert triage.body == {"input": "my bill", "choices": {"a": ["x"], "b": ["y"]}}
    assert draft.body == {"max_tokens": 9, "messages": MESSAGES}
    expected = {"temperature": 1.0, "top_k": 5, "max_tokens": 7, "messages": answer.body["messages"]}
    assert answer.body == expected
    assert [call.answers for call in (triage, draft, answer)] == [False, False, True]


# The input is the text of the last user message, whatever its form.
@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}], "one"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            "a\nb",
        ),
        ([{"role": "system", "content": "only"}], "only"),
    ],
)
def test_last_user_text(messages, text):
    assert last_user_text(messages) == text


# A prompt that cannot be rendered from what the client sent is the messages' fault.
def test_unrenderable_prompt():
    chain = CHAIN.model_copy(
        update={"steps": (Chain.model_validate(_one_step("{{ messages[5].content }}")).steps[0],)}
    )
    with pytest.raises(InvalidRequest) as refused:
        Walk(chain, MESSAGES, {}).ready()
    assert refused.value.param == "messages"


def _one_step(prompt):
    step = {"id": "answer", "generate": {"engine": "writer", "prompt": prompt}}
    return {"steps": [step], "answer": "answer", "samples": [{"messages": MESSAGES}]}


@contextlib.asynccontextmanager
async def live_world(**writer):
    async with World(gateways=1) as world:
        wanted = content(1, writer={"load": "10ms", **writer})
        world.want(wanted)
        await world.until_live(wanted)
        yield world


async def admit(world, **options):
    return await world.admit(Ask("agent", MESSAGES, options, stream=True))


# Hops carry the engine's own counts, the usage is their sum, and their times fit into each other.
async def test_hops_add_up():
    async with live_world() as world:
        call = await world.ask()
        triage, answer = call.hops
        assert call.usage == total([triage.usage, answer.usage])
        assert answer.usage.completion == 20
        assert triage.duration_ms == pytest.approx(5.0)
        assert answer.ttft_ms == pytest.approx(50.0)
        assert answer.duration_ms == pytest.approx(50.0 + 19 * 20.0)
        assert answer.queue_ms == pytest.approx(0.0, abs=1e-6)


# When the deadline passes in a step, the error names it, the engine's work stops and the lease closes.
async def test_deadline_names_the_step_and_frees_all():
    slow = document(1, writer={"load": "10ms", "inter_token": "2s"})
    slow["chains"]["agent"]["steps"][1]["generate"]["sampling"] = {"max_tokens": 2}
    async with World(gateways=1) as world:
        world.want(content_of(slow))
        await world.until_live(content_of(slow))
        call = await admit(world, max_tokens=20)
        await call.start()
        with pytest.raises(DeadlineExceeded, match="'answer'"):
            async for _ in call.chunks():
                pass
        await call.aclose()
        assert world.leases() == 0
        assert await world.cluster.idle(call.release.engines["writer"])


# Closing a call in the middle aborts the engine's work, closes the lease, and meters what was made.
async def test_closing_aborts_and_meters():
    async with live_world() as world:
        call = await admit(world)
        await call.start()
        seen = 0
        async for chunks in call.chunks():
            seen += len(chunks)
            if seen == 4:
                break
        await call.aclose()
        assert world.leases() == 0
        assert await world.cluster.idle(call.release.engines["writer"])
        assert world.metered().completion == 4


# A request that is cancelled while its first hop runs gives its lease back.
async def test_cancelled_in_the_first_hop():
    async with live_world() as world:
        asking = asyncio.create_task(world.ask())
        await asyncio.sleep(0.001)
        assert world.leases() == 1
        asking.cancel()
        await asyncio.wait([asking])
        assert world.leases() == 0


# An engine that is taken away under a call is told to the client as unavailable, not as a hang.
async def test_engine_lost_under_a_call():
    async with live_world() as world:
        call = await admit(world)
        await call.start()
        await world.cluster.delete(call.release.engines["writer"])
        with pytest.raises(EngineUnavailable):
            async for _ in call.chunks():
                pass
        await call.aclose()
        assert world.leases() == 0


# An answer that is signed by an engine of another release is thrown away, never mixed in.
async def test_an_engine_of_another_release_is_found_out():
    async with live_world() as world:
        live = world.gateways[0].follower.routing.live
        wrong = dict.fromkeys(live.clients, live.clients["writer"])
        world.gateways[0].follower.routing.hold(dataclasses.replace(live, clients=wrong))
        assert await world.ask() is None
        assert isinstance(world.tally.failed[0], WrongEngine)
        assert world.leases() == 0


class Unsigned:
    """An engine's client whose answers nobody has signed."""

    def __init__(self, engine):
        self._engine = engine

    async def classify(self, body):
        return (await self._engine.classify(body))._replace(engine="")

    async def spent(self, hop):
        return await self._engine.spent(hop)


# An answer that nobody has signed is thrown away, too.
async def test_an_unsigned_answer_is_thrown_away():
    async with live_world() as world:
        live = world.gateways[0].follower.routing.live
        clients = {**live.clients, "router": Unsigned(live.clients["router"])}
        world.gateways[0].follower.routing.hold(dataclasses.replace(live, clients=clients))
        assert await world.ask() is None
        assert isinstance(world.tally.failed[0], WrongEngine)


# The chain's deadline counts from the request's arrival: time before its chain began is not given anew.
async def test_the_deadline_counts_from_arrival():
    async with live_world() as world:
        deadline = world.gateways[0].follower.routing.live.routed.chains["agent"].deadline
        arrived = world.clock.now() - deadline + 0.001  # enough to be admitted, too little for an engine
        call = await world.admit(Ask("agent", MESSAGES, stream=True), arrived=arrived)
        with pytest.raises(DeadlineExceeded):
            await call.start()
        await call.aclose()
        assert world.leases() == 0
