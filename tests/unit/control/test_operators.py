"""What operators ask for: it is done by the owner of the state, once, and what does not fit costs nothing."""

import asyncio

import pytest

from runtime.core.requests.ask import Ask
from runtime.core.swap import events as ev
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.release import ReleaseState
from runtime.core.views.status import status
from runtime.errors import CommandRefused, EtagMissing, StaleEtag, UnknownRelease, WrongState
from tests.unit.api.test_api import serving
from tests.unit.world import World, content

QUICK = {"load": "100ms"}
LONG = {"rollback_window": "1h"}


async def ask(world, action, release=None, edition=ANY_EDITION):
    return await world.controller.command(Command(action, "ann", edition, release))


async def swapped(world, *versions, **changes):
    """Make each version live in turn; the release numbers are 1, 2, ..."""
    for version in versions:
        wanted = content(version, writer=QUICK, **{**LONG, **changes})
        world.want(wanted, change=f"change-{version}")
        await world.until_live(wanted)
        await world.until(lambda s: ReleaseState.DRAINING not in states(s).values())


def states(state):
    return {number: release.state for number, release in state.releases.items()}


async def serves(world, release):
    call = await world.ask()
    return call is not None and call.release.number == release


# A set with a manual cutover comes up and waits; it goes live when an operator says so, and not before.
async def test_manual_cutover_is_held():
    async with World() as world:
        await swapped(world, 1)
        world.want(content(2, writer=QUICK, cutover="manual"))
        await world.until(lambda s: states(s).get(2) is ReleaseState.STANDBY)
        await asyncio.sleep(120)
        assert await serves(world, 1)
        await ask(world, Action.PROMOTE)
        await world.until(lambda s: s.live.number == 2 and s.acknowledgement_of(s.live).last is not None)
        assert await serves(world, 2)


# A rollback is a cutover to the release that was live before: its engines are awake and probed first.
async def test_rollback():
    async with World() as world:
        await swapped(world, 1, 2)
        await world.until(lambda s: any(e.state == "asleep" for e in s.engines.values()))
        begun = world.clock.wall()
        await ask(world, Action.ROLLBACK)
        await world.until(lambda s: s.live.number == 1 and s.acknowledgement_of(s.live).last is not None)
        assert world.clock.wall() - begun < 1
        assert await serves(world, 1)
        assert world.cluster.served_cold() == 0
        assert world.tally.failed == []


# A rollback in mid-drain goes back at once; the requests of both releases end where they began.
async def test_rollback_in_mid_drain():
    async with World() as world:
        await swapped(world, 1)
        early = world.gateways[0].follower.routing.lease(Ask("agent"))
        second = content(2, writer=QUICK, **LONG)
        world.want(second)
        await world.until(lambda s: states(s).get(1) is ReleaseState.DRAINING)
        late = [asyncio.create_task(world.ask()) for _ in range(3)]
        await asyncio.sleep(0)
        await ask(world, Action.ROLLBACK, 1)
        assert world.state.live.number == 1
        assert [call.release.number for call in await asyncio.gather(*late)] == [2, 2, 2]
        assert await serves(world, 1)
        early.close()
        assert world.tally.mixed == 0


# An aborted candidate is given up with the operator's name as the reason; what it held is freed.
async def test_abort():
    async with World() as world:
        await swapped(world, 1)
        world.want(content(2, writer={"load": "1h"}))
        await world.until(lambda s: states(s).get(2) is ReleaseState.LOADING)
        await ask(world, Action.ABORT)
        await world.until(lambda s: states(s)[2] is ReleaseState.RETIRED)
        assert world.state.releases[2].reason == "aborted by ann"
        assert len(await world.cluster.engines()) == 2
        assert await serves(world, 1)


# A release whose engines answer otherwise after they slept is refused its promotion; the live one goes on.
async def test_garbled_after_a_wake():
    async with World() as world:
        wanted = content(1, writer={**QUICK, "slept_reply": "garbage-"}, **LONG)
        world.want(wanted)
        await world.until_live(wanted)
        await swapped(world, 2)
        await world.until(lambda s: any(e.state == "asleep" for e in s.engines.values()))
        await ask(world, Action.ROLLBACK)
        await world.until(lambda s: s.releases[1].reason is not None)
        reason = world.state.releases[1].reason
        assert "chains.agent.samples[0].answer: after its wake an engine answers 'garbage-0" in reason
        assert world.state.live.number == 2
        assert await serves(world, 2)
        await world.until(lambda s: states(s)[1] is ReleaseState.RETIRED)


# Of two operators who decided by the same edition only the first wins; the second is told the state.
async def test_two_operators():
    async with World() as world:
        await swapped(world, 1, 2)
        edition = world.state.edition
        answers = await asyncio.gather(
            ask(world, Action.ROLLBACK, 1, edition),
            ask(world, Action.ROLLBACK, 1, edition),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers][1] is StaleEtag
        assert "live is release" in answers[1].state
        await world.until(lambda s: s.live.number == 1)


# What restarts and re-deploys repeat undoes no command: the YAML's last change is still the last.
async def test_same_yaml_undoes_no_rollback():
    async with World() as world:
        await swapped(world, 1, 2)
        await ask(world, Action.ROLLBACK)
        await world.until(lambda s: s.live.number == 1)
        world.want(content(2, writer=QUICK, **LONG), change="change-2")
        await asyncio.sleep(30)
        assert world.state.live.number == 1
        world.want(content(2, writer=QUICK, **LONG), change="change-3")
        await world.until(lambda s: s.live.number == 2)


# Every refusal has its own error and says the state; it changes nothing and is in the audit log.
@pytest.mark.parametrize(
    ("action", "release", "edition", "error", "state"),
    [
        (Action.PROMOTE, 2, ANY_EDITION, WrongState, "live"),
        (Action.PROMOTE, 9, ANY_EDITION, UnknownRelease, "edition {0}, live is release 2"),
        (Action.PROMOTE, None, ANY_EDITION, UnknownRelease, "edition {0}, live is release 2"),
        (Action.ABORT, 1, ANY_EDITION, WrongState, "standby"),
        (Action.ABORT, 2, ANY_EDITION, WrongState, "live"),
        (Action.ABORT, None, ANY_EDITION, UnknownRelease, "edition {0}, live is release 2"),
        (Action.ROLLBACK, 2, ANY_EDITION, WrongState, "live"),
        (Action.ROLLBACK, 9, ANY_EDITION, UnknownRelease, "edition {0}, live is release 2"),
        (Action.ROLLBACK, 1, 3, StaleEtag, "edition {0}, live is release 2"),
        (Action.ROLLBACK, 1, None, EtagMissing, "edition {0}, live is release 2"),
    ],
)
async def test_refusals(action, release, edition, error, state):
    async with World() as world:
        await swapped(world, 1, 2)
        await world.until(lambda s: any(e.state == "asleep" for e in s.engines.values()))
        before, entries = world.state, len(world.journal.entries)
        with pytest.raises(CommandRefused) as refused:
            await ask(world, action, release, edition)
        assert type(refused.value) is error
        assert refused.value.state == state.format(before.edition)
        assert world.state.revision == before.revision
        entry = world.journal.entries[entries]
        assert (entry.actor, entry.action, entry.outcome) == ("ann", action, f"refused: {error.code}")


# A rollback needs a release that is still resident. Where there is none it says why: none is live, none was
# live before, or its window is over.
async def test_nothing_to_roll_back_to():
    async with World() as world:
        with pytest.raises(UnknownRelease, match="no release is live yet"):
            await ask(world, Action.ROLLBACK)
        await swapped(world, 1, rollback_window="1m")
        with pytest.raises(UnknownRelease, match="release 1 is the first that went live"):
            await ask(world, Action.ROLLBACK)
        await swapped(world, 2, rollback_window="1m")
        await asyncio.sleep(70)
        with pytest.raises(UnknownRelease, match="its rollback window is over"):
            await ask(world, Action.ROLLBACK)


# A manual cutover is asked for each time that the set is wanted, also of one that has been live before.
async def test_manual_cutover_is_held_each_time():
    async with World() as world:
        manual = content(1, writer=QUICK, cutover="manual", **LONG)
        other = content(2, writer=QUICK, **LONG)
        for change in ("first", "third"):
            world.want(manual, change=change)
            await world.until(lambda s: states(s).get(1) is ReleaseState.STANDBY and s.wanted.release == 1)
            await asyncio.sleep(60)
            assert world.state.live is None or world.state.live.number == 2
            shown = status(world.state, {}).releases[0]
            assert (shown.held, shown.waits_for) == (True, "held: interlock promote 1")
            await ask(world, Action.PROMOTE)
            await world.until_live(manual)
            world.want(other, change=f"after {change}")
            await world.until_live(other)
        await ask(world, Action.ROLLBACK)
        await world.until_live(manual)


# What has failed, or was given up, is brought up again by a command: the same file again is no change.
async def test_retry():
    async with World() as world:
        await swapped(world, 1)
        second = content(2, writer=QUICK, **LONG)
        world.want(second, change="2")
        await world.until(lambda s: states(s).get(2) is ReleaseState.LOADING)
        await ask(world, Action.ABORT)
        health = (await world.manager.checkup().health()).as_json()
        assert "interlock retry 2" in str(health["tiers"]["orchestration"]["reasons"])
        world.want(second, change="2")
        await world.until(lambda s: states(s)[2] is ReleaseState.RETIRED)
        with pytest.raises(WrongState, match="release 1 is live: only one that has failed"):
            await ask(world, Action.RETRY, 1)
        after = await ask(world, Action.RETRY)
        assert after.wanted.release == 3
        await world.until_live(second)
        assert await serves(world, 3)
        entry = world.journal.entries[-1]
        assert (entry.actor, entry.action, entry.to_release, entry.outcome) == ("ann", "retry", 2, "accepted")


# The command's way in: what was given up comes up again, and what has not failed is refused with a 409.
async def test_retry_over_http():
    async with serving() as (world, client):
        world.want(content(2, writer={"load": "1h"}))
        await world.until(lambda s: states(s).get(2) is ReleaseState.LOADING)
        any_edition = {"if-match": "*"}
        assert (await client.post("/admin/v1/releases/abort", headers=any_edition)).status_code == 200
        again = await client.post("/admin/v1/releases/2/retry", headers=any_edition)
        assert (again.status_code, again.json()["wanted"]["release"]) == (200, 3)
        refused = await client.post("/admin/v1/releases/retry", headers=any_edition)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "wrong_state")


# A set that could not be read has nothing to be tried again: it is mended and deployed.
async def test_retry_of_what_could_not_be_read():
    async with World() as world:
        await swapped(world, 1)
        world.controller.post(ev.Refused(at=0.0, change="bad", source="bad.yaml", reason="unknown key"))
        await world.until(lambda s: 2 in s.releases)
        with pytest.raises(WrongState, match="could not be read: mend its model set"):
            await ask(world, Action.RETRY)


# The audit log says who, what, when, and from which release to which; YAML and operators alike.
async def test_audit():
    async with World() as world:
        await swapped(world, 1, 2)
        await ask(world, Action.ROLLBACK)
        told = [(e.actor, e.action, e.from_release, e.to_release, e.outcome) for e in world.journal.entries]
        assert told == [
            ("serve config", "want", None, 1, "accepted"),
            ("serve config", "want", 1, 2, "accepted"),
            ("ann", "rollback", 2, 1, "accepted"),
        ]
