"""Upgrades: journals, stores, tags and frames that an earlier Interlock has written go on being read.

The files in ``frozen`` were written by the version whose store's tables are 0007; they never change.
"""

import json
import pickle
import sqlite3
from pathlib import Path

import pytest

from runtime.channel import wire
from runtime.channel.fault import Fault
from runtime.clock import SystemClock
from runtime.control.journal import MemoryJournal
from runtime.core.metering.ledger import Batch, EndedHop, HopTag, Purpose
from runtime.core.metering.series import Family, MetricKind, MetricsSnapshot, Series
from runtime.core.metering.usage import Usage
from runtime.core.model_set.digest import Content
from runtime.core.model_set.engines import FakeEngineSpec, TransformersEngineSpec, VllmEngineSpec
from runtime.core.model_set.history import as_it_was
from runtime.core.requests.keys import digest_of
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.phase import EnginePhase
from runtime.core.swap.state import ControlState
from runtime.engines.tally import TAG, Tally
from runtime.errors import StoreError
from runtime.store.journal import Journal
from runtime.store.keys import KeyStore
from runtime.store.metrics import MetricsStore
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from tests.unit.fresh_store import fresh_store
from tests.unit.world import World, content

FROZEN = Path(__file__).parent / "frozen"
WIRE = json.loads((FROZEN / "wire.json").read_text())


def lines_of(name):
    return (FROZEN / f"journal-{name}.jsonl").read_text().splitlines()


def folded(lines):
    state = ControlState()
    for line in lines:
        state = fold(state, ev.decode(line))
    return state


# A journal that was written before leads to the state that it led to when it was written.
@pytest.mark.parametrize("name", ["swaps", "garbled", "doubted"])
def test_journals(name):
    state, expected = folded(lines_of(name)), json.loads((FROZEN / f"journal-{name}.json").read_text())
    told = {
        "revision": state.revision,
        "edition": state.edition,
        "live": state.live.number,
        "wanted": state.wanted.change,
        "cutovers": state.cutovers,
        "failures": state.failures,
        "releases": {
            str(n): {
                "state": str(r.state),
                "warm": r.warm,
                "proven": r.proven,
                "digest": r.content.digest if r.content else None,
                "reason": r.reason,
            }
            for n, r in state.releases.items()
        },
        "engines": {digest: str(engine.state) for digest, engine in state.engines.items()},
    }
    assert told == expected


# A manager starts on it, brings up what is to be up, and swaps.
async def test_a_manager_goes_on():
    journal = MemoryJournal()
    journal.lines = lines_of("swaps")
    async with World(journal=journal) as world:
        await world.until(lambda s: s.live is not None and s.live.warm)
        assert world.state.live.number == 8
        wanted = content(20, writer={"load": "1s"})
        world.want(wanted)
        await world.until_live(wanted)
        assert await world.ask() is not None


OLD = ev.encode(ev.Wanted(at=1.0, change="c", source="s", content=content(1)))


def old(path, value):
    """Return the wish for a set as an Interlock wrote it whose specs had ``value`` there."""
    told = json.loads(OLD)
    *above, last = path
    place = told["content"]["model_set"]
    for part in above:
        place = place[part]
    place[last] = value
    return json.dumps(told)


CHAIN = ("chains", "agent")
WRITER = ("engines", "writer")


# What today's specs refuse of a set that was taken once is no reason not to start: keys that have another
# name now, values that are out of bounds now, and rules that were made since.
@pytest.mark.parametrize(
    "line",
    [
        old(["warmup_timeout"], "300s"),
        old([*WRITER, "colour"], "red"),
        old([*CHAIN, "steps", 1, "generate", "beam"], 4),
        old([*CHAIN, "deadline"], "soon"),
        old([*CHAIN, "max_tokens"], 0),
        old([*CHAIN, "samples", 0, "params"], {"stream": True}),
        old([*CHAIN, "answer"], "triage"),
        old([*CHAIN, "latency_budget"], {"nobody": "50%"}),
        old([*CHAIN, "steps", 1, "generate", "engine"], "nobody"),
        old([*CHAIN, "steps", 1, "generate", "prompt"], "{{ steps.later.text }}"),
        old(["engines", "idle"], {"kind": "fake"}),
        old(["name"], "Not A Name"),
    ],
)
def test_old_sets_are_read(line):
    event = ev.decode(line)
    assert isinstance(event, ev.Wanted)
    assert event.content.digest == content(1).digest
    assert event.content.engines == content(1).engines
    spec, _ = event.content.spec_of(event.content.engines["writer"])
    assert spec.load == 20.0
    assert event.content.model_set.chains["agent"].deadline in (30.0, 60.0)
    assert ev.decode(ev.encode(event)) == event


# What is read so is what it was, where today's specs have nothing against it.
def test_as_it_was():
    for name in ("swaps", "garbled", "doubted"):
        for line in lines_of(name):
            told = json.loads(line)
            if told["type"] == "wanted":
                assert as_it_was(Content, told["content"]) == Content.model_validate(told["content"])


# A set of which too little is left counts as refused, and the same YAML is read anew: it is a change.
@pytest.mark.parametrize("path", [["engines"], ["chains"]])
def test_too_little_is_left(path):
    event = ev.decode(old(path, None))
    assert isinstance(event, ev.Refused)
    assert event.change == ""
    assert "an older Interlock took this set" in event.reason


# Members of events that are not known are left out; those that a later version has added have defaults.
def test_members_of_events():
    assert ev.decode('{"at": 1, "type": "engine_loaded", "engine": "e", "colour": "red"}') == ev.EngineLoaded(
        at=1.0, engine="e"
    )


# An event of no known kind ends the start with a sentence: what, where, what to do.
@pytest.mark.parametrize("text", ['{"at": 1, "type": "engine_painted"}', "no JSON", "[]", '{"at": 1}'])
def test_unknown_events(text):
    journal = Journal(fresh_store())
    journal.append(1, ev.EngineFound(at=1.0, engine="e"))
    with journal._engine.begin() as connection:
        connection.exec_driver_sql("update journal set event = ?", (text,))
    with pytest.raises(
        StoreError, match=r"^event 1 of the journal cannot be read: [^\n]*run that one[^\n]*$"
    ):
        list(journal.replay())


# An event that today's fold does not allow any more is counted, and keeps no manager from starting.
async def test_an_event_that_does_not_fit():
    journal = MemoryJournal()
    journal.lines = lines_of("swaps")
    journal.lines.insert(5, ev.encode(ev.EngineSlept(at=1.0, engine="nobody")))
    async with World(journal=journal) as world:
        await world.until(lambda s: s.live is not None and s.live.warm)
        assert world.state.live.number == 8
        assert world.state.revision == len(journal.lines)


@pytest.fixture
def store(tmp_path):
    """A store of the version before, opened by this one."""
    with sqlite3.connect(tmp_path / "interlock.db") as made:
        made.executescript((FROZEN / "store-0007.sql").read_text())
    made.close()
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db")
    yield engine
    engine.dispose()


# A store of the version before opens, and everything in it is what it was.
def test_a_store(store):
    assert folded(map(ev.encode, Journal(store).replay())).live.number == 8
    budgets = Budgets(store, SystemClock())
    assert [cap.limit for cap in budgets.caps()] == [5000, 500, 10**9]
    month = next(standing for standing in budgets.standing() if standing.cap.limit == 5000)
    assert (month.counter.spent, month.counter.reserved) == (150, 100)
    assert Ledger(store).total() == Usage(90, 60, 15)
    key = KeyStore(store).find(digest_of("il-frozen-example-key-0000000000000000000000000"))
    assert (key.id, key.tenant, key.revoked) == ("k1", "acme", None)
    assert [family.name for family in MetricsStore(store, 9).load().families()] == ["interlock_prompt_tokens"]


TAGGED = HopTag.read(WIRE["tag"])


# A tag says to a later or an earlier Interlock what both know: members that one has more are left out, those
# that one has fewer are at their defaults. It may cross as a list, or pickled.
def test_tags():
    assert HopTag.read([*WIRE["tag"], "more", 7]) == TAGGED
    assert HopTag.read(WIRE["tag"][:3]) == HopTag("hop1", "r1", "mine")
    assert pickle.loads(pickle.dumps(TAGGED)) == TAGGED
    assert TAGGED.__reduce__() == (HopTag.read, (tuple(WIRE["tag"]),))


PLAIN = {str, int, float}


# A tag is sent as plain values, by requests and by warm-ups: an engine of another version knows no class by
# where it is here.
async def test_tags_are_plain():
    assert {type(value) for value in HopTag("h", purpose=Purpose.WARMUP).plain()} <= PLAIN
    async with World(gateways=1) as world:
        sent, warm = [], world.cluster.warm

        async def noted(engine, operation, body):
            sent.append(body[TAG])
            return await warm(engine, operation, body)

        world.cluster.warm = noted
        world.want(content(1))
        await world.until_live(content(1))
        client = world.followers[0].routing.live.clients["router"]
        classify = client.classify

        async def asked(body):
            sent.append(body[TAG])
            return await classify(body)

        client.classify = asked
        warmed = len(sent)
        await world.ask()
        assert warmed > 0
        assert len(sent) == warmed + 1
        assert {type(value) for tag in sent for value in tag} <= PLAIN


# An engine counts a call whose tag says more than it knows.
async def test_a_tag_of_tomorrow():
    tally = Tally(SystemClock())
    with tally.call({TAG: [*WIRE["tag"], "more"]}) as count:
        count.usage = Usage(1, 2)
    assert await tally.spent("hop1") == Usage(1, 2)


# What replicas of the version before send is read: over the handle, which is where other versions are called.
def test_what_replicas_send():
    batch = pickle.loads(bytes.fromhex(WIRE["batch"]))
    assert batch == Batch("replica-1", [EndedHop(1, TAGGED, Usage(30, 20, 5, 0), 0.5)])


FAMILY = Family("vllm:x", MetricKind.COUNTER, "Help.", {Series("vllm:x_total", (("a", "b"),)): 2.0})
PICKLED = json.loads((FROZEN / "pickled.json").read_text())


# What an earlier Interlock has deployed, and what its replicas send over a handle, is found by the names
# that its classes had then.
@pytest.mark.parametrize("name", PICKLED)
def test_earlier_names(name):
    known = {
        "fake": FakeEngineSpec(kind="fake", load="2s", tokens=3),
        "transformers": TransformersEngineSpec(kind="transformers", model="all-minilm"),
        "vllm": VllmEngineSpec(
            kind="vllm",
            llm_config={"model_loading_config": {"model_id": "m"}, "engine_kwargs": {"max_model_len": 512}},
            price={"prompt": 1},
        ),
        "usage": Usage(3, 2, 1),
        "address": wire.Address("r", "127.0.0.1", 7, "s"),
        "fault": Fault("EngineUnavailable", "m"),
        "phase": EnginePhase.PLACING,
        "told": MetricsSnapshot("replica-1", 3, [FAMILY]),
    }
    value = pickle.loads(bytes.fromhex(PICKLED[name]))
    assert value == known[name] if name in known else value.__name__ == name


# A hello has the same form in all versions: by it each says which it speaks.
def test_hello():
    assert wire.decode_hello(bytes.fromhex(WIRE["hello"])) == wire.Hello(2, "secret")
    assert wire.decode_hello(wire.encode(wire.Hello(wire.VERSION, "secret"))).version == wire.VERSION
