"""A warm-up, whole, in virtual time: which calls engines see, in which order, and what they took."""

import pytest

from runtime.core.model_set.warming import PROBES
from runtime.core.requests.ask import Ask
from runtime.core.swap.planning import plan
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState
from runtime.testing.model_sets import content_of
from tests.unit.world import World, document

JSON = {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "object"}}}
YES_OR_NO = {"choice": ["yes", "no"]}
TWO = {"deployment_config": {"num_replicas": 2}}
FAST = {"inter_token": "1ms"}


def declared(warmup=None, writer=None, samples=None, steps=None):
    """A set that is quickly loaded, with other ``samples`` or ``steps`` where they are given."""
    made = document(1, writer={"load": "10ms", **(writer or {})}, warmup=warmup or {})
    chain = made["chains"]["agent"]
    chain["samples"] = samples or chain["samples"]
    chain["steps"] = steps or chain["steps"]
    return made


def asked(text, **params):
    return {"messages": [{"role": "user", "content": text}], "params": params}


def drafted(prompt, **sampling):
    """Steps that draft before they answer; ``prompt`` is the answer's."""
    return [
        {"id": "draft", "generate": {"engine": "writer", "prompt": "draft it", "sampling": sampling}},
        {"id": "answer", "generate": {"engine": "writer", "prompt": prompt}},
    ]


class Watched(World):
    """A world that keeps the generating calls of its warm-ups, and how many were under way together."""

    def __init__(self):
        super().__init__(gateways=1)
        self.bodies = []
        self.peaks = []
        self._under_way = 0
        self._warm = self.cluster.warm
        self.cluster.warm = self._watch

    async def _watch(self, engine, operation, body):
        if operation != "generate":
            return await self._warm(engine, operation, body)
        self.bodies.append(body)
        self.peaks = [*self.peaks, 0] if not self._under_way else self.peaks
        self._under_way += 1
        self.peaks[-1] = max(self.peaks[-1], self._under_way)
        try:
            return await self._warm(engine, operation, body)
        finally:
            self._under_way -= 1

    async def live(self, made):
        """Bring a set up; return its content."""
        wanted = content_of(made)
        self.want(wanted)
        await self.until_live(wanted)
        return wanted

    def replicas(self, wanted):
        """The replicas of its writer."""
        return self.cluster._replicas(wanted.engines["writer"])


# A grammar is compiled on every replica by the warm-up, whoever asks for it, a step or a client: a
# request that asks for it is not the first.
async def test_grammars():
    steps = drafted("be brief: {{ steps.draft.text }}", structured_outputs=YES_OR_NO)
    samples = [asked("my bill"), asked("my bill", response_format=JSON)]
    async with Watched() as world:
        wanted = await world.live(declared(writer=TWO, steps=steps, samples=samples))
        compiled = [{"structured_outputs": YES_OR_NO}, {"response_format": JSON}]
        assert [replica.seen_grammars for replica in world.replicas(wanted)] == [compiled] * 2
        messages = [{"role": "user", "content": "my bill"}]
        ask = Ask("agent", messages, {"response_format": JSON}, stream=True)
        for _ in range(2):
            call = await world.admit(ask)
            await call.start()
            await call.aclose()
        assert [replica.seen_grammars for replica in world.replicas(wanted)] == [compiled] * 2


# Each declared batch size is under way together once, from small to large, whatever the order they are in.
async def test_batch_sizes():
    async with Watched() as world:
        samples = [asked("my bill"), asked("a bug")]
        await world.live(declared({"at_once": [5, 2]}, samples=samples))
        assert [peak for peak in world.peaks if peak > 1] == [2 * 2, 5 * 2]


# Every replica reads a prompt of every declared length, after the samples and before the batches.
async def test_lengths():
    async with Watched() as world:
        wanted = await world.live(declared({"prompt_tokens": [700, 50]}, writer=TWO))
        sizes = [len(body["messages"][0]["content"].split()) for body in world.bodies]
        assert sizes[:4] == [2, 50, 700, 2]
        assert sizes.count(50) == sizes.count(700) == 1
        first, second = [await replica.metered() for replica in world.replicas(wanted)]
        assert first == second
        assert first.prompt > 750


# The last that a warm-up asks for is the head of every prompt, one token each, whether a sample leads
# there or not.
async def test_heads_come_last():
    async with Watched() as world:
        await world.live(declared())
        heads = world.bodies[-3:]
        assert [body["messages"][0]["content"] for body in heads] == ["a v1", "b v1", "a v1"]
        assert [body["max_tokens"] for body in heads] == [1, 1, 1]
        assert all(body.get("max_tokens") != 1 for body in world.bodies[:-3])
        assert not any(body["messages"][0]["content"] == "b v1" for body in world.bodies[:-3])


# What the bound on combinations leaves out is shown while the heads are run.
async def test_progress_says_what_is_left_out():
    options = {f"c{n}": [f"example {n}"] for n in range(20)}
    steps = declared()["chains"]["agent"]["steps"]
    steps[0]["route"]["choices"] = options
    async with Watched() as world:
        shown = []
        world.controller._running.effects._post = lambda event: shown.append(event.text)
        await world.live(declared(steps=steps))
        assert "prompt heads, 16 of 20 combinations of choices: 17 of 17" in shown


# A prompt that cannot be made for one of the choices fails the candidate: a request would find it out.
async def test_a_choice_that_no_prompt_is_made_for():
    made = declared()
    made["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "{{ {'a': 'money'}[steps.triage.choice] }}"
    async with Watched() as world:
        world.want(content_of(made))
        await world.until(lambda s: s.releases.get(1) and s.releases[1].state is ReleaseState.RETIRED)
        reason = world.state.releases[1].reason
        assert "chains.agent.samples[0] with triage b: the prompt cannot be made" in reason


# A prompt that needs more of an earlier answer than a head has of it does not fail the warm-up.
async def test_a_prompt_that_reads_a_whole_answer():
    async with Watched() as world:
        await world.live(declared(steps=drafted("say {{ steps.draft.text.split('v1-')[12] }}")))
        said = [body["messages"][0]["content"] for body in world.bodies]
        assert said.count("say 11") == 1 + 4
        assert said.count("draft it") == 1 + 4 + PROBES + 1


SETS = {
    "one sample": declared(),
    "long samples": declared(samples=[asked("a b " * 400), asked("b a " * 700)]),
    "replicas": declared({"at_once": [1, 9], "prompt_tokens": [100, 3000]}, writer=TWO),
    "no limit": declared(writer={"tokens": 4000, **FAST}),
    "params": declared(writer={"tokens": 4000, **FAST}, samples=[asked("my bill", max_tokens=3000)]),
    "an answer in a prompt": declared(
        writer={"tokens": 3000, **FAST}, steps=drafted("{{ steps.draft.text }}")
    ),
    "a whole answer": declared(steps=drafted("say {{ steps.draft.text.split('v1-')[12] }}")),
    "a long choice": declared(
        steps=[
            {"id": "triage", "route": {"engine": "router", "choices": {"a": ["bug"], "b": ["bill"]}}},
            {
                "id": "answer",
                "generate": {
                    "engine": "writer",
                    "prompt": "{% if steps.triage.choice == 'b' %}" + "x y " * 500 + "{% endif %}",
                },
            },
        ]
    ),
}


# A plan's tokens are never fewer than the warm-up takes.
@pytest.mark.simulation
@pytest.mark.parametrize("made", SETS.values(), ids=SETS)
async def test_the_plan_is_an_upper_bound(made):
    async with Watched() as world:
        wanted = content_of(made)
        planned = plan(wanted, ControlState(), await world.cluster.devices())
        await world.live(made)
        assert world.state.live.warmup.total <= planned.warmup_tokens


# Where prompts or answers are long the plan is close to what the warm-up takes: no round counts twice.
@pytest.mark.simulation
@pytest.mark.parametrize("name", ["long samples", "params", "no limit"])
async def test_the_plan_is_close(name):
    async with Watched() as world:
        planned = plan(content_of(SETS[name]), ControlState(), await world.cluster.devices())
        await world.live(SETS[name])
        assert planned.warmup_tokens < 1.3 * world.state.live.warmup.total
