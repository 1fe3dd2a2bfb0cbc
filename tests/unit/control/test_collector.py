"""What dead gateways have left: collected from engines before it is released, or they are unloaded."""

import asyncio

import pytest

from runtime.control import collector, effects
from runtime.errors import EngineUnavailable, StoreUnavailable
from tests.unit.world import World, content


class NotedLedger:
    """Notes with which lag it is swept; ``away`` while its store does not answer."""

    def __init__(self, ledger):
        self._ledger, self.swept, self.away = ledger, [], False

    async def write(self, rows):
        if self.away:
            raise StoreUnavailable("the store does not answer")
        return await self._ledger.write(rows)

    async def sweep(self, lag):
        self.swept.append(lag)
        return await self._ledger.sweep(lag)


# What a dead gateway has reserved is not free again before every engine has told what was spent of it; one
# that does not tell for long is waited for no more.
async def test_no_sweep_before_its_spending_is_known(monkeypatch):
    monkeypatch.setattr(collector, "SILENT_SECONDS", 120.0)  # in truth ten minutes
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        await asyncio.sleep(10.0)
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        await asyncio.sleep(10.0)
        assert 0.0 < max(noted.swept) <= collector.AGE_SECONDS + 2 * collector.PERIOD_SECONDS
        ended, hung = world.cluster.ended, wanted.engines["writer"]

        async def hangs(engine, *args):
            if engine == hung:
                await asyncio.Event().wait()
            return await ended(engine, *args)

        monkeypatch.setattr(world.cluster, "ended", hangs)
        begun = world.clock.now()
        await asyncio.sleep(100.0)
        assert noted.swept[-1] == pytest.approx(world.clock.now() - begun, abs=15.0)
        await asyncio.sleep(collector.SILENT_SECONDS)
        assert noted.swept[-1] < 30.0


# A manager that has just started sweeps nothing before it has asked all engines once.
async def test_no_sweep_before_the_first_round(monkeypatch):
    monkeypatch.setattr(collector, "SILENT_SECONDS", 120.0)  # in truth ten minutes
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        await world.stop_manager()

        async def away(*_args):
            raise EngineUnavailable("no answer")

        monkeypatch.setattr(world.cluster, "ended", away)
        world.start_manager()
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        await asyncio.sleep(60.0)
        assert noted.swept == []
        await asyncio.sleep(collector.SILENT_SECONDS)
        assert noted.swept != []


# An engine that hangs keeps nobody from collecting what ended on the others.
async def test_a_hung_engine_keeps_no_other_waiting(monkeypatch):
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        asked, ended = [], world.cluster.ended

        async def hangs(engine, *args):
            asked.append(engine)
            if engine == wanted.engines["router"]:
                await asyncio.Event().wait()
            return await ended(engine, *args)

        monkeypatch.setattr(world.cluster, "ended", hangs)
        await asyncio.sleep(2 * (collector.PERIOD_SECONDS + collector.PATIENCE_SECONDS) + 3.0)
        assert asked.count(wanted.engines["writer"]) >= 3


async def swap_away(world):
    """Let the first release's writer go; return both contents."""
    one, two = (content(n, writer={"load": "1s", "tokens": 4}, rollback_window="1s") for n in (1, 2))
    world.want(one)
    await world.until_live(one)
    await world.ask(0)
    return one, two


# An engine is not unloaded before what ended on it is in the ledger, however long the store is away.
async def test_unloading_waits_for_the_ledger():
    async with World() as world:
        one, two = await swap_away(world)
        world.gateways[0].ledger.dead = True  # what the gateway writes gets nowhere: only the engine can tell
        await world.ask(0)
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        noted.away = True
        world.want(two)
        await world.until_live(two)
        await asyncio.sleep(300.0)
        writer = one.engines["writer"][:12]
        assert writer in await world.cluster.engines()
        assert "waits until" in world.state.progress[f"engine {one.engines['writer']}"].text
        noted.away = False
        await world.until(lambda s: one.engines["writer"] not in s.engines, seconds=60)
        assert world.ledger.total() == await world.cluster.metered_ever()


# An engine that tells nothing, or a ledger that takes nothing, keeps an engine no longer than the limit.
@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (EngineUnavailable("gone"), effects.SILENT_LIMIT_SECONDS),
        (ValueError("a row that no database takes"), 60.0),
    ],
)
async def test_unloading_waits_no_longer_than_its_limit(monkeypatch, error, limit):
    async with World() as world:
        one, two = await swap_away(world)

        async def breaks(*_args, **_options):
            raise error

        monkeypatch.setattr(effects, "UNWRITTEN_LIMIT_SECONDS", 60.0)  # in truth half an hour
        monkeypatch.setattr(world.controller._collector, "collect", breaks)
        world.want(two)
        await world.until_live(two)
        begun = world.clock.now()
        await world.until(lambda s: one.engines["writer"] not in s.engines, seconds=limit + 60.0)
        assert world.clock.now() - begun > limit - 10.0
