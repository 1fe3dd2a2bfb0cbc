"""Several Interlocks may share a Ray cluster: each touches and counts what its own id names."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic import command

from runtime.core.model_set.engines import FakeEngineSpec
from runtime.core.swap.installation import Installation, engine_in_name, installation_in_name
from runtime.core.swap.release import ReleaseState
from runtime.errors import OtherStore
from runtime.store.installation import installation_of
from runtime.store.sql.database import open_store
from runtime.store.sql.upgrade import migrations
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from tests.unit.world import World, content

OURS, THEIRS = Installation("aaaaaaaa"), Installation("bbbbbbbb")
QUICK = {"load": "1s"}
STRANGER = FakeEngineSpec.model_validate({"kind": "fake"})


def first(version=1, **options):
    return content(version, writer=QUICK, rollback_window="2s", **options)


def apps(installation, wanted):
    return {installation.application(digest) for digest in wanted.engines.values()}


# An application is one's own by the id in its name; what begins alike, or has another one's id, is not.
def test_names():
    digest = "0123456789abcdef"
    assert OURS.application(digest) == "engine-aaaaaaaa-0123456789ab"
    names = [OURS.application(digest), THEIRS.application(digest), "engine-search", "engine-0123456789ab"]
    assert OURS.engines(names) == {"0123456789ab"}
    assert OURS.engines(names[1:]) == frozenset()
    assert [engine_in_name(name) for name in names] == ["0123456789ab", "0123456789ab", "", "0123456789ab"]
    assert [installation_in_name(name) for name in names] == ["aaaaaaaa", "bbbbbbbb", "", ""]


# Of names without an id those are one's own that the journal knows, if the store is older than the ids.
def test_inherited_names():
    names, known = ["engine-0123456789ab", "engine-ffffffffffff"], ["0123456789abcdef"]
    assert Installation("aaaaaaaa", inherits=True).inherited(names, known) == {"0123456789ab"}
    assert OURS.inherited(names, known) == frozenset()


# Two Interlocks in one Ray cluster serve and swap beside each other, also with the same engines, and an
# application of somebody else's that is called alike survives both.
async def test_two_interlocks_in_one_cluster():
    ours = FakeCluster(LoopClock(), installation=OURS)
    theirs = ours.beside(THEIRS)
    strangers = {"engine-search", "engine-0123456789ab"}
    for name in strangers:
        ours.host(name, STRANGER)
    async with World(cluster=ours) as one, World(cluster=theirs) as two:
        for world in (one, two):
            world.want(first())
            await world.until_live(first())
        assert set(ours.applications) == strangers | apps(OURS, first()) | apps(THEIRS, first())
        await two.stop_manager()
        two.start_manager()
        one.want(first(2))
        await one.until_live(first(2))
        two.want(first(3))
        await two.until_live(first(3))
        for world in (one, two):
            await world.until(lambda s: s.releases[1].state is ReleaseState.RETIRED)
            assert await world.ask() is not None, world.tally.failed
        assert set(ours.applications) == strangers | apps(OURS, first(2)) | apps(THEIRS, first(3))
        for world in (one, two):
            told = await world.cluster.infrastructure()
            assert len(told.deployments) == 2


def renamed_as_before(cluster):
    """Give applications the names that they had before names carried the id."""
    for name in list(cluster.applications):
        cluster.applications[f"engine-{engine_in_name(name)}"] = cluster.applications.pop(name)


# Engines of before the ids serve on after an upgrade: they are not loaded again, and go when nobody needs
# them; what is called like one and is in nobody's journal is left alone.
async def test_upgrade_adopts_what_the_journal_knows():
    cluster = FakeCluster(LoopClock(), installation=OURS)
    async with World(cluster=cluster) as world:
        world.want(first())
        await world.until_live(first())
        await world.stop_manager()
        renamed_as_before(cluster)
    cluster.host("engine-0123456789ab", STRANGER)
    upgraded = cluster.beside(Installation(OURS.id, inherits=True))
    async with World(cluster=upgraded, journal=world.journal) as world:
        await world.until(lambda s: s.live and s.live.warm)
        await asyncio.sleep(1)
        assert await world.ask() is not None
        assert upgraded.done.created == []
        world.want(first(2))
        await world.until_live(first(2))
        await world.until(lambda s: s.releases[1].state is ReleaseState.RETIRED)
        assert upgraded.done.deleted == [first().engines["writer"][:12]]
        router, writer = (first(2).engines[name] for name in ("router", "writer"))
        left = {"engine-0123456789ab", f"engine-{router[:12]}", OURS.application(writer)}
        assert set(cluster.applications) == left


# A store has one id from the first opening on, and another store another.
def test_a_store_keeps_its_id(store_url, tmp_path):
    ids = []
    for url in (store_url, store_url, f"sqlite:///{tmp_path}/another.db"):
        engine = open_store(url)
        ids.append(installation_of(engine))
        engine.dispose()
    assert ids[0] == ids[1] != ids[2]
    assert engine_in_name(ids[0].application("0123456789abcdef")) == "0123456789ab"
    assert not ids[0].inherits


# A store whose journal is older than the ids says so: engines that it knows may be there without one.
def test_an_upgraded_store_inherits(store_url):
    engine = sa.create_engine(store_url)
    config = migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.execute(sa.text("insert into journal (revision, epoch, event) values (1, 1, '{}')"))
    engine.dispose()
    engine = open_store(store_url)
    assert installation_of(engine).inherits
    engine.dispose()


# A gateway whose own store is not the manager's refuses to start, and says what to set.
async def test_a_gateway_with_another_store_does_not_start():
    async with World(
        gateways=1, stores=["bbbbbbbb"], cluster=FakeCluster(LoopClock(), installation=OURS)
    ) as w:
        with pytest.raises(
            OtherStore, match=r"installation bbbbbbbb.*of installation aaaaaaaa.*INTERLOCK_STORE"
        ):
            await w.gateways[0].follower.first_table()


# While the store is changed by a deploy, a gateway of the new one waits for the manager of the new one.
async def test_a_gateway_waits_while_the_store_changes():
    old, new = FakeCluster(LoopClock(), installation=OURS), FakeCluster(LoopClock(), installation=THEIRS)
    async with World(gateways=1, stores=[THEIRS.id], cluster=old) as before:
        starting = asyncio.create_task(before.gateways[0].follower.first_table())
        await asyncio.sleep(20)
        async with World(gateways=1, cluster=new) as after:
            before.manager.controller = after.controller
            await asyncio.wait_for(starting, 10)


# One that serves already goes on by what it knows, counts for no swap, and health names it.
async def test_a_gateway_that_comes_to_have_another_store():
    async with World(stores=["", "bbbbbbbb"], cluster=FakeCluster(LoopClock(), installation=OURS)) as world:
        world.want(first())
        await world.until_live(first())
        assert set(world.state.gateways) == {"gateway-0"}
        health = (await world.manager.checkup().health()).as_json()
        reasons = health["tiers"]["infrastructure"]["reasons"]
        assert [r for r in reasons if "gateway-1 uses another store than the manager" in r], reasons
