"""Loops that must live: whatever one of them breaks by, it goes on, and health and metrics tell of it."""

import asyncio
import itertools

import pytest

from runtime.control import committed
from runtime.core.loops import LONGEST_PAUSE_SECONDS, NEWS_SECONDS, STEADY_SECONDS, pause_after
from runtime.core.swap import policy
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.events import GatewaysHeard, ReleasePlanned
from runtime.errors import EngineUnavailable, Fenced, InternalError
from runtime.loops import LoopWatch
from runtime.testing.virtual_time import LoopClock
from tests.prometheus import total_of
from tests.unit.world import World, content

ONE = content(1, writer={"load": "1s", "tokens": 4})
TWO = content(2, writer={"load": "1s", "tokens": 4})


class Breaking:
    """Stands for a method; breaks ``times`` times, then does what the method does."""

    def __init__(self, real, times=1, error=KeyError):
        self.real, self.left, self.error = real, times, error

    def __call__(self, *args, **options):
        if self.left:
            self.left -= 1
            raise self.error("nobody foresaw it")
        return self.real(*args, **options)


async def told(world, loop):
    """What health and metrics tell of a loop: a reason and a count."""
    health = await world.manager.health()
    reasons = [r for r in health["tiers"]["orchestration"]["reasons"] if f"loop {loop} of" in r]
    text = (await world.gateways[0].follower.metrics()).decode()
    return reasons, total_of(text, "interlock_loop_restarts_total", loop=loop)


# The pause before a restart doubles and has a bound.
def test_pauses():
    assert [pause_after(n) for n in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 8, 10, LONGEST_PAUSE_SECONDS]


# A loop that breaks runs again after its pause; one that has run for long begins with the first pause.
async def test_started_again():
    clock, begun = LoopClock(), []
    watch = LoopWatch("manager", clock)

    async def loop():
        begun.append(clock.now())
        if len(begun) == 4:
            await asyncio.sleep(100.0)
        raise OSError("no file")

    task = asyncio.create_task(watch.keep("loop", loop))
    await asyncio.sleep(109.0)
    task.cancel()
    assert [at - begun[0] for at in begun] == pytest.approx([0.0, 1.0, 3.0, 7.0, 108.0])
    (report,) = watch.reports()
    assert (report.loop, report.restarts, report.error) == ("loop", 5, "OSError: no file")


# A loop that must live and returns has broken, too.
async def test_a_loop_that_ends_is_started_again():
    watch = LoopWatch("manager", LoopClock())

    async def loop():
        await asyncio.sleep(1.0)

    task = asyncio.create_task(watch.keep("loop", loop))
    await asyncio.sleep(5.5)
    task.cancel()
    assert watch.reports()[0].restarts == 2


# An error that a loop is meant to end by ends it.
async def test_an_error_that_ends():
    watch = LoopWatch("manager", LoopClock())

    async def loop():
        raise Fenced("over")

    with pytest.raises(Fenced):
        await watch.keep("loop", loop, ends=(Fenced,))


# Each loop of a gateway that breaks goes on within seconds: swaps and requests do as if nothing had been.
@pytest.mark.parametrize(
    ("loop", "place", "method"),
    [
        ("follow", "manager", "next_table"),
        ("report", "manager", "report"),
        ("count", "manager", "count"),
        ("prepare", "directory", "retain"),
    ],
)
async def test_loops_of_a_gateway(loop, place, method):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        port = world.manager if place == "manager" else world.gateways[0].link
        breaking = Breaking(getattr(port, method))
        setattr(port, method, breaking)
        world.want(TWO)
        await world.until_live(TWO, seconds=60)
        await asyncio.sleep(20.0)
        assert breaking.left == 0
        assert await world.ask(0) is not None
        reasons, restarts = await told(world, loop)
        assert len(reasons) == 1
        assert "KeyError: 'nobody foresaw it'" in reasons[0]
        assert restarts == 1


# Collecting and sweeping go on after an error that is none of the store's, and say that they broke.
@pytest.mark.parametrize(("loop", "method"), [("collect", "_try"), ("sweep", "_try_to_sweep")])
async def test_loops_of_the_manager(loop, method):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        collector, done = world.controller._collector, []
        real = getattr(collector, method)

        async def breaks_once(*args):
            done.append(world.clock.now())
            if len(done) == 1:
                raise TypeError("nobody foresaw it")
            await real(*args)

        setattr(collector, method, breaks_once)
        await asyncio.sleep(30.0)
        reasons, restarts = await told(world, loop)
        assert len(reasons) == 1
        assert f"loop {loop} of the manager broke once" in reasons[0]
        assert restarts == 1
        assert len(done) > 5


# What broke a while ago is told no more by health; metrics keep it.
async def test_old_news():
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        world.controller.loops.broke("collect", ValueError("once"))
        await asyncio.sleep(NEWS_SECONDS + 1.0)
        assert await told(world, "collect") == ([], 1)


# A restart of the manager takes no count of restarts back.
async def test_counts_outlast_the_manager():
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        world.controller.loops.broke("collect", ValueError("once"))
        assert (await told(world, "collect"))[1] == 1
        await world.stop_manager()
        world.start_manager()
        await world.until(lambda s: s.live is not None and not s.hearing)
        world.controller.loops.broke("collect", ValueError("again"))
        assert (await told(world, "collect"))[1] == 2


# An event that breaks the manager's loop is left out and told of; what comes after it counts.
async def test_a_poisonous_event(monkeypatch):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        from runtime.control import committed

        fold = committed.fold

        def poisoned(state, event):
            if isinstance(event, GatewaysHeard):
                raise OverflowError("int too large")
            return fold(state, event)

        monkeypatch.setattr(committed, "fold", poisoned)
        world.controller.post(GatewaysHeard(at=world.clock.wall()))
        world.want(TWO)
        await world.until_live(TWO, seconds=60)
        assert not world.manager_ended
        assert (await told(world, "take events"))[1] == 1


# What an effect found out and cannot be taken is tried again with growing pauses, not at once for ever.
async def test_a_poisonous_result(monkeypatch):

    fold, seen = committed.fold, []

    def poisoned(state, event):
        if isinstance(event, ReleasePlanned):
            seen.append(asyncio.get_running_loop().time())
            if len(seen) < 6:
                raise OverflowError("int too large")
        return fold(state, event)

    monkeypatch.setattr(committed, "fold", poisoned)
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE, seconds=120)
        assert [round(after - before) for before, after in itertools.pairwise(seen)] == [
            1,
            2,
            4,
            8,
            10,
        ]


# A command that breaks what carries it out is answered with an error, and the next one is carried out.
async def test_a_poisonous_command():
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        world.journal.note = Breaking(world.journal.note, error=OverflowError)
        with pytest.raises(InternalError):
            await world.controller.command(Command(Action.PROMOTE, "ann", ANY_EDITION, 10**30))
        assert not world.manager_ended
        world.want(TWO)
        await world.until_live(TWO, seconds=60)
        await world.controller.command(Command(Action.ROLLBACK, "ann", ANY_EDITION))
        await world.until_live(ONE, seconds=60)


# A policy that breaks on a state does not end the manager: it is asked again, at the pace of its pauses.
async def test_a_policy_that_breaks(monkeypatch):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        breaking = Breaking(policy.decide, times=3, error=ZeroDivisionError)
        monkeypatch.setattr(policy, "decide", breaking)
        world.want(TWO)
        await world.until_live(TWO, seconds=60)
        assert not world.manager_ended
        assert (await told(world, "decide"))[1] == 3


# Whoever waits for a command's answer gets one when the manager ends.
async def test_a_command_amid_the_end():
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)

        async def fenced(_entry):
            raise Fenced("another manager")

        world.journal.note = fenced
        command = Command(Action.PROMOTE, "ann", ANY_EDITION, 99)
        answers = await asyncio.wait_for(
            asyncio.gather(*(world.controller.command(command) for _ in range(3)), return_exceptions=True),
            1.0,
        )
        assert len(answers) == 3
        assert all(isinstance(answer, Exception) for answer in answers)
        assert isinstance(await world.stop_manager(), Fenced)


# A state that the policy breaks on does not end the manager that starts on it either.
@pytest.mark.parametrize("broken", ["decide", "due"])
async def test_a_start_into_a_policy_that_breaks(monkeypatch, broken):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)
        await world.stop_manager()
        monkeypatch.setattr(
            policy, broken, Breaking(getattr(policy, broken), times=2, error=ZeroDivisionError)
        )
        world.start_manager()
        world.want(TWO)
        await world.until_live(TWO, seconds=120)
        assert not world.manager_ended


# A command that was the next to be taken when the manager ended has an answer, too.
async def test_the_next_command_amid_the_end(monkeypatch):
    async with World() as world:
        world.want(ONE)
        await world.until_live(ONE)

        def fenced(*_):
            raise Fenced("another manager")

        monkeypatch.setattr(policy, "decide", fenced)
        world.want(TWO)
        command = Command(Action.ABORT, "ann", ANY_EDITION)
        asked = asyncio.gather(*(world.controller.command(command) for _ in range(2)), return_exceptions=True)
        answers = await asyncio.wait_for(asked, 60.0)
        assert all(isinstance(answer, EngineUnavailable) for answer in answers)
        await asyncio.sleep(60.0)  # what runs is stopped first
        assert isinstance(await world.stop_manager(), Fenced)


# What breaks again after a long quiet time is started again as quickly as at first.
async def test_an_old_break_is_forgotten():
    loops = LoopWatch("manager", LoopClock())
    assert [loops.broke("collect", ValueError()) for _ in range(3)] == [1.0, 2.0, 4.0]
    await asyncio.sleep(STEADY_SECONDS)
    assert loops.broke("collect", ValueError()) == 1.0


# An observer of the state that breaks costs nothing but what it would have done; health tells of it.
async def test_an_observer_breaks():
    seen = []
    async with World() as world:

        def watch(before, after):
            assert after is world.state
            seen.append((before.revision, after.revision))

        world.controller._committed.observers = (Breaking(lambda *_: None, times=3), watch)
        world.want(ONE)
        await world.until_live(ONE)
        reasons, count = await told(world, "tell observers")
        assert (len(reasons), count) == (1, 3)
        assert all(later[0] == earlier[1] for earlier, later in itertools.pairwise(seen))
        assert seen[-1][1] == world.state.revision
