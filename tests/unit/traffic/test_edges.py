import asyncio

import pytest
from rich.console import Console

from runtime.cli.status_view import render
from runtime.core.model_set.digest import change_digest
from runtime.core.model_set.engines import VllmEngineSpec
from runtime.core.swap.routes import GatewayReport
from runtime.core.views.forms import Status
from runtime.core.views.status import status
from runtime.core.walk.call import Choice, Text
from runtime.core.walk.walk import Walk
from runtime.errors import EngineUnavailable
from tests.unit.traffic.test_chain import CHAIN, MESSAGES
from tests.unit.world import World, content


# A manager that has not recovered yet has no table, and gateways keep routing by the one they hold.
async def test_a_recovering_manager_takes_no_table_away():
    async with World(gateways=1) as world:
        wanted = content(1)
        world.want(wanted)
        await world.until_live(wanted)
        await world.stop_manager()
        replay = world.journal.replay

        async def slow():
            await asyncio.sleep(25)
            return await replay()

        world.journal.replay = slow
        world.start_manager()
        with pytest.raises(EngineUnavailable):
            await world.controller.hub.next_table(GatewayReport("other", 1, version=-1))
        await asyncio.sleep(5)
        assert await world.ask() is not None
        assert world.tally.failed == []


# A null is OpenAI's "not given": it takes no limit of the operator's away.
def test_null_overrides_nothing():
    run = Walk(CHAIN, MESSAGES, {"max_tokens": None, "temperature": None})
    for result in (Choice("b", {}), Text("x")):
        (call,) = run.ready()
        run.record(call, result)
    (answer,) = run.ready()
    assert (answer.body["max_tokens"], answer.body["temperature"]) == (7, 0.5)


# A reason that looks like markup is shown as it is, and breaks nothing.
async def test_reasons_are_not_markup():
    async with World(gateways=1) as world:
        reason = "cannot read [/opt/x] [type=value_error]"
        world.want(content(1, writer={"fail": "load", "load": "1ms"}))
        await world.until(lambda s: s.releases and s.releases[1].reason)
        shown = status(world.state, {}).as_json()
        shown["releases"][0]["waits_for"] = shown["wanted"]["reason"] = reason
        console = Console(width=300)
        with console.capture() as captured:
            console.print(render(Status.model_validate(shown)))
        assert captured.get().count(reason) == 2


# The digest of a change depends on its content, not on its order, and takes whatever YAML can hold.
def test_change_digest():
    assert change_digest({"a": 1, "b": [{"c": 2, "d": 3}]}) == change_digest(
        {"b": [{"d": 3, "c": 2}], "a": 1}
    )
    assert change_digest({"a": 1}) != change_digest({"a": "1"})
    assert change_digest({1: "x", "1": "y"}) != change_digest({1: "y", "1": "x"})


# Every replica that is there from the start is waited for and warmed, also those of an autoscaler.
@pytest.mark.parametrize(
    ("deployment", "replicas"),
    [
        ({}, 1),
        ({"num_replicas": 3}, 3),
        ({"autoscaling_config": {"min_replicas": 2, "max_replicas": 9}}, 2),
        ({"autoscaling_config": {"min_replicas": 1, "initial_replicas": 4}}, 4),
    ],
)
def test_replicas_from_the_start(deployment, replicas):
    llm_config = {"model_loading_config": {"model_id": "m"}, "deployment_config": deployment}
    assert VllmEngineSpec(kind="vllm", llm_config=llm_config).replicas == replicas


# An engine that does not say whether it is idle, on a cluster that does not answer either, is not idle.
async def test_silence_is_not_idleness(monkeypatch):
    async def silent(*_):
        raise EngineUnavailable("no answer")

    async with World(gateways=1) as world:
        effects = world.controller._running.effects
        monkeypatch.setattr(world.cluster, "idle", silent)
        assert await effects._is_idle("absent")
        monkeypatch.setattr(world.cluster, "observe", silent)
        assert not await effects._is_idle("absent")
