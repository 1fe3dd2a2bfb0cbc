"""Commands that nobody in his right mind would send: refused and told of, and the controller goes on."""

import asyncio

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runtime.core.swap.commands import ANY_EDITION, MOST_RELEASES, Action, Command
from runtime.errors import InterlockError, InternalError, UnknownRelease
from runtime.store.asynchronous.journal import AsyncJournal
from runtime.store.journal import Journal
from runtime.testing.inline import InlineExecutor
from runtime.testing.virtual_time import VirtualTimeLoop
from tests.unit.fresh_store import fresh_store
from tests.unit.world import World, content

FAR = [2**31, 2**63, 99999999999999999999, -1, -(2**70)]


async def live_world(stack):
    world = World(gateways=1, journal=AsyncJournal(Journal(fresh_store()), InlineExecutor()))
    wanted = content(1, writer={"load": "100ms"})
    await world.__aenter__()
    stack.append(world)
    world.want(wanted)
    await world.until_live(wanted)
    return world


# A release's number that no column holds is a release that there is not: refused, audited, nothing ends.
@pytest.mark.parametrize("number", FAR)
@pytest.mark.parametrize("action", list(Action))
async def test_numbers_beyond_the_store(action, number):
    stack = []
    world = await live_world(stack)
    with pytest.raises(UnknownRelease):
        await world.controller.command(Command(action, "ann", ANY_EDITION, number))
    assert not world.manager_ended
    (newest,) = await world.journal.audit(1)
    assert (newest["actor"], newest["outcome"]) == ("ann", "refused: unknown_release")
    assert newest["to_release"] is None or newest["to_release"] <= MOST_RELEASES
    assert await world.ask() is not None
    await stack[0].__aexit__()


# An audit log that cannot take an entry leaves nobody without an answer, and does not end the controller.
async def test_an_audit_log_that_takes_nothing():
    async with World(gateways=1) as world:

        async def full(_entry):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")

        world.journal.note = full
        with pytest.raises(InternalError):
            await world.controller.command(Command(Action.PROMOTE, "ann", ANY_EDITION, 7))
        assert not world.manager_ended


anything = st.one_of(st.none(), st.integers(), st.text(max_size=400), st.lists(st.integers(), max_size=2))
commands = st.builds(
    Command,
    action=st.one_of(st.sampled_from(Action), st.text(max_size=5)),
    actor=st.one_of(st.text(max_size=400), st.integers()),
    edition=st.one_of(st.just(ANY_EDITION), anything),
    release=anything,
)


# No command's content ends the controller: each is answered, by a state or by an error of ours.
@settings(max_examples=30, phases=[Phase.generate])
@given(st.lists(commands, min_size=1, max_size=40))
def test_any_command(asked):
    async def play():
        stack = []
        world = await live_world(stack)
        for command in asked:
            try:
                async with asyncio.timeout(10):
                    await world.controller.command(command)
            except InterlockError:
                pass
            assert not world.manager_ended
        await stack[0].__aexit__()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())
