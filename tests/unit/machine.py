"""Controller, cluster and gateways as a model: any order of what can happen, one thing at a time.

The controller's part is the real fold and the real policy. The cluster and the gateways are kept as
they really are, apart from what the controller was told: reports come late, and overtake each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import SwapPlan
from runtime.core.swap import effects, policy
from runtime.core.swap import events as ev
from runtime.core.swap.commands import ANY_EDITION, Action, Command, check
from runtime.core.swap.fold import fold
from runtime.core.swap.policy import leases
from runtime.core.swap.release import CANDIDATE, HOLDING, Move, ReleaseState
from runtime.core.swap.routes import GatewayReport, RoutingTable
from runtime.core.swap.state import EXISTING, ControlState, EngineState, pausing
from runtime.errors import CommandRefused
from tests.unit.world import content

# Four writers, one router: sets share engines in every way, some have no engine of their own, one fits
# only while the live one sleeps, and one is held for an operator.
SETS = [
    content(1),
    content(2),
    content(3),
    content(3, warmup={"timeout": "9s"}),
    content(4, strategy="sleep_live"),
    content(2, cutover="manual"),
]
WISHES = st.sampled_from([*range(len(SETS)), None])
PLAN = SwapPlan()
ENGINES = sorted({engine for wanted in SETS for engine in wanted.engines.values()})


@dataclass
class Gateway:
    """What a gateway really holds, and its reports that are still on the way."""

    name: str
    table: RoutingTable = field(default_factory=lambda: RoutingTable(version=-1))
    prepared: frozenset[int] = frozenset()
    leases: dict[int, int] = field(default_factory=dict)
    sequence: int = 0
    mail: list[GatewayReport] = field(default_factory=list)
    heard: bool = False

    def say(self):
        self.sequence += 1
        held = dict(self.leases)
        self.mail.append(GatewayReport(self.name, self.sequence, self.table.version, self.prepared, held))


class Interlock(RuleBasedStateMachine):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.at = 0
        self.journal = []
        self.state = ControlState()
        self.apps = set()
        self.warm = set()
        self.asleep = set()
        self.gateways = {}
        self.joined = 0
        self.changes = 0
        self.table = policy.routing_table(self.state)
        self.all_due = []
        self.served = False

    # -- the controller ---------------------------------------------------------------------------

    def commit(self, event):
        before = self.state
        self.state = fold(before, event)
        self.journal += [event] if isinstance(event, ev.Durable) else []
        self.check_event(before, event)

    def happens(self, event):
        self.commit(event)
        self.settle()

    def settle(self):
        for _ in range(100):
            decision = policy.decide(self.state, self.at)
            if decision is None:
                break
            self.commit(decision)
        else:
            raise AssertionError("the policy reaches no fixpoint")
        self.all_due = sorted(policy.due(self.state), key=repr)
        table = policy.routing_table(self.state)
        if table.version == self.table.version:
            assert table == self.table, "by its version gateways are shown a table"
        self.table = table

    def now(self):
        self.at += 1
        return self.at

    # -- wishes -----------------------------------------------------------------------------------

    @rule(which=WISHES, again=st.sampled_from([False, False, True]))
    def want(self, which, again):
        """Want a set, maybe by the same change as before, or one that cannot be read (None)."""
        self.changes += not again
        wish = {"at": self.now(), "change": f"{self.changes}", "source": "set.yaml"}
        if which is None:
            self.happens(ev.Refused(**wish, reason="not valid YAML"))
        else:
            self.happens(ev.Wanted(**wish, content=SETS[which]))

    @rule(which=WISHES, busy=st.booleans())
    def swap(self, which, busy):
        """Want a set, and all goes well: else few runs would come as far as a second swap."""
        self.want(which, again=False)
        self.goes_well(steps=12, busy=busy, follow=True)

    @initialize(gateways=st.integers(0, 2), busy=st.booleans())
    def begin(self, gateways, busy):
        """Begin in the middle of a swap: what is hard to get right comes after that."""
        for _ in range(gateways):
            self.gateway_joins()
        self.swap(0, busy=busy)
        self.want(1, again=False)
        self.goes_well(steps=8, busy=busy, follow=True)
        self.goes_well(steps=2, busy=busy, follow=False)

    @rule(action=st.sampled_from(list(Action)), which=st.integers(0, 9))
    def operator_commands(self, action, which):
        """Ask for something: what does not fit is refused and changes nothing."""
        numbers = [None, *self.state.releases]
        command = Command(action, "somebody", ANY_EDITION, numbers[which % len(numbers)])
        try:
            event = check(self.state, command, self.now())
        except CommandRefused:
            return
        self.happens(event)

    # -- effects end --------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 8), busy=st.booleans(), follow=st.booleans())
    def goes_well(self, steps, busy, follow):
        """Let what is due end well, with gateways that have requests, and take new tables or lag behind."""
        for _ in range(steps):
            for gateway in list(self.gateways.values()):
                self.poll(gateway) if follow else self.report(gateway)
                if busy and gateway.table.live is not None and not gateway.table.paused:
                    gateway.leases[gateway.table.live] = 1
            kinds = (
                effects.PlanRelease,
                effects.LoadEngine,
                effects.UnloadEngine,
                effects.SleepEngine,
                effects.WakeEngine,
                effects.WarmRelease,
                effects.ProbeRelease,
                effects.AwaitIdle,
            )
            effect = next((effect for effect in self.all_due if isinstance(effect, kinds)), None)
            if effect is not None:
                self.ends(effect, works=True)

    @precondition(lambda self: self.all_due)
    @rule(data=st.data(), works=st.sampled_from([True, True, False]))
    def effect_ends(self, data, works):
        self.ends(data.draw(st.sampled_from(self.all_due)), works=works)

    def ends(self, effect, works):
        if (event := self.outcome(effect, works=works)) is not None:
            self.happens(event)

    def outcome(self, effect, works):  # noqa: C901 - a table of effects
        """Return what comes of an effect in the world as it is, or None if it cannot end now."""
        at = self.now()
        match effect:
            case effects.LoadEngine(engine):
                self.asleep.discard(engine[:SHORT])
                self.apps.add(engine[:SHORT])
                self.warm.discard(engine[:SHORT])
                failed = ev.EngineFailed(at=at, engine=engine, reason="no memory")
                return ev.EngineLoaded(at=at, engine=engine) if works else failed
            case effects.PlanRelease(release):
                refused = ev.ReleaseFailed(at=at, release=release, reason="no room")
                return ev.ReleasePlanned(at=at, release=release, plan=PLAN) if works else refused
            case effects.AwaitRoom(release):
                return ev.RoomAwaited(at=at, release=release)
            case effects.SleepEngine() | effects.WakeEngine() if works:
                return self.turns(effect, at)
            case effects.ProbeRelease(release):
                garbled = ev.ProbeFailed(at=at, release=release, reason="garbled")
                return ev.ReleaseProbed(at=at, release=release) if works else garbled
            case effects.UnloadEngine(engine):
                self.asleep.discard(engine[:SHORT])
                self.apps.discard(engine[:SHORT])
                return ev.EngineUnloaded(at=at, engine=engine)
            case effects.WarmRelease(release) if works:
                self.warm |= {engine[:SHORT] for engine in self.state.releases[release].engines}
                return ev.ReleaseWarmed(at=at, release=release)
            case effects.WarmRelease(release) if self.state.releases[release].state in CANDIDATE:
                return ev.ReleaseFailed(at=at, release=release, reason="too slow")
            case effects.AwaitIdle(release):
                return ev.ReleaseDrained(at=at, release=release)
            case effects.AwaitDeadline(release, _, reason):
                return ev.DeadlinePassed(at=at, release=release, reason=reason)
            case effects.WatchGateway(name) if name not in self.gateways:
                return ev.GatewayLost(at=at, gateway=name)
            case effects.AwaitGateways() if all(gateway.heard for gateway in self.gateways.values()):
                return ev.GatewaysHeard(at=at)
        return None

    def turns(self, effect, at):
        """Return what comes of going to sleep, or of waking."""
        if isinstance(effect, effects.WakeEngine):
            self.asleep.discard(effect.engine[:SHORT])
            return ev.EngineWoken(at=at, engine=effect.engine)
        self.check_unused(effect.engine)
        self.asleep.add(effect.engine[:SHORT])
        return ev.EngineSlept(at=at, engine=effect.engine)

    # -- gateways -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.gateways) < 3)
    @rule()
    def gateway_joins(self):
        self.joined += 1
        name = f"gateway-{self.joined}"
        self.gateways[name] = Gateway(name)
        self.poll(self.gateways[name])

    def report(self, gateway):
        gateway.say()
        self.deliver(gateway, -1)

    def poll(self, gateway):
        """Say what is held, take the table, prepare, route by it: the order of a long poll."""
        self.report(gateway)
        gateway.table = self.table
        gateway.prepared = frozenset(self.table.releases)

    def deliver(self, gateway, position):
        report = gateway.mail.pop(position)
        gateway.heard = True
        self.happens(ev.GatewayReported(at=self.now(), report=report))

    @precondition(lambda self: self.gateways)
    @rule(data=st.data(), act=st.sampled_from(["poll", "say", "arrive", "finish", "die"]))
    def gateway_acts(self, data, act):
        """One gateway does one thing. Its reports need not arrive in the order in which it sent them."""
        gateway = self.gateways[data.draw(st.sampled_from(sorted(self.gateways)))]
        match act:
            case "poll":
                self.poll(gateway)
            case "say":
                gateway.say()
            case "arrive" if gateway.mail:
                self.deliver(gateway, data.draw(st.integers(0, len(gateway.mail) - 1)))
            case "finish":
                gateway.leases.clear()
            case "die":
                del self.gateways[gateway.name]

    # -- the manager restarts -------------------------------------------------------------------------

    @rule(data=st.data(), crash=st.booleans(), orphan=st.booleans())
    def manager_restarts(self, data, crash, orphan):
        """Replay, as ``Controller._recover`` does; with it the cluster may have lost or kept engines."""
        if crash and self.apps:
            self.apps.remove(data.draw(st.sampled_from(sorted(self.apps))))
        if orphan:
            self.apps.add(data.draw(st.sampled_from(ENGINES))[:SHORT])
        for gateway in self.gateways.values():
            gateway.heard = False
            gateway.mail.clear()
        self.state = self.folded(self.journal)
        self.table = RoutingTable(version=-1)
        if self.journal:
            self.commit(ev.ManagerRestarted(at=self.now()))
        for engine in list(self.state.engines.values()):
            if engine.state in EXISTING and engine.digest[:SHORT] not in self.apps:
                self.commit(ev.EngineMissing(at=self.now(), engine=engine.digest))
        for app in sorted(self.apps - {digest[:SHORT] for digest in self.state.engines}):
            self.commit(ev.EngineFound(at=self.now(), engine=app))
        self.settle()

    @staticmethod
    def folded(journal):
        return reduce(fold, journal, ControlState())

    # -- what always holds ------------------------------------------------------------------------------

    def check_unused(self, engine):
        """No request is on an engine that goes to sleep: vLLM would hang, or crash."""
        for gateway in self.gateways.values():
            for number in gateway.leases:
                assert engine not in self.state.releases[number].engines

    @invariant()
    def what_is_planned_waits_for_nobody(self):
        """A release is planned once nothing goes any more that nobody keeps, or after it was waited for."""
        for effect in self.all_due:
            if isinstance(effect, effects.PlanRelease):
                assert not self.state.being_freed() or self.state.releases[effect.release].room_awaited

    @invariant()
    def what_takes_requests_is_awake(self):
        table = policy.routing_table(self.state)
        if table.live is not None and not table.paused:
            engines = table.releases[table.live].engines.values()
            assert not {engine[:SHORT] for engine in engines} & self.asleep

    @invariant()
    def one_that_excludes_loads_only_while_the_live_one_sleeps(self):
        live, coming = self.state.live, self.state.coming
        for effect in self.all_due:
            if not (isinstance(effect, effects.LoadEngine) and live and coming and coming.excludes):
                continue
            if effect.engine in coming.engines - live.engines:
                own = {engine[:SHORT] for engine in live.engines - coming.engines}
                assert own & self.apps <= self.asleep

    def check_event(self, before, event):
        match event:
            case ev.ReleaseMoved(move=Move.PROMOTE, release=number):
                release = before.releases[number]
                assert release.warm, "a release goes live warm"
                assert release.proven, "a release goes live seen to answer rightly since it slept"
                assert not release.held, "a release that is held waits for an operator"
                assert all(before.engines[e].state is EngineState.LOADED for e in release.engines)
                told = {name for name, report in before.gateways.items() if number in report.prepared}
                routing = {
                    n for n in self.gateways if n not in before.gateways or before.gateways[n].version >= 0
                }
                assert told >= routing, "every gateway that routes has said that it is prepared"
            case ev.EngineReleased(engine=digest):
                failed = before.engines[digest].state is EngineState.FAILED
                assert failed or not before.users_of(digest), "an engine goes only when nobody refers to it"

    @invariant()
    def one_is_live_for_ever(self):
        live = sum(release.state is ReleaseState.LIVE for release in self.state.releases.values())
        self.served = self.served or live > 0
        assert live == self.served

    @invariant()
    def leases_are_on_what_is_live_or_drains(self):
        leased = {number for gateway in self.gateways.values() for number in gateway.leases}
        states = {self.state.releases[number].state for number in leased}
        assert states <= {ReleaseState.LIVE, ReleaseState.DRAINING}

    @invariant()
    def loaded_engines_exist(self):
        loaded = {e.digest[:SHORT] for e in self.state.engines.values() if e.state is EngineState.LOADED}
        assert loaded <= self.apps

    @invariant()
    def routed_engines_are_warm(self):
        for routed in policy.routing_table(self.state).releases.values():
            assert {engine[:SHORT] for engine in routed.engines.values()} <= self.warm

    @invariant()
    def nothing_is_held_for_nobody(self):
        wanted = self.state.wanted.release if self.state.wanted else None
        assert all(release.was_live or release.number == wanted for release in self.state.holding)

    @invariant()
    def a_wish_is_never_stuck(self):
        """What is wanted is over for a reason; or it serves, waits for gateways, or something is due."""
        wanted = self.state.wanted and self.state.releases[self.state.wanted.release]
        if wanted is None or wanted.reason is not None:
            return
        assert wanted.state in HOLDING
        waits = wanted.state in (ReleaseState.STANDBY, ReleaseState.DRAINING) and wanted.warm
        serves = policy.routing_table(self.state).live == wanted.number
        live = self.state.live
        alone = live and leases.no_leases_while_paused(self.state, live)
        leased = pausing(self.state) and (not alone or any(g.leases for g in self.gateways.values()))
        assert waits or serves or leased or any(not isinstance(e, effects.WatchGateway) for e in self.all_due)

    def teardown(self):
        """Fold the journal again: all but what gateways say and what is only shown comes back."""
        durable = self.state.releases | {r.number: replace(r, room_awaited=False) for r in self.state.taken}
        again = self.folded(ev.decode(ev.encode(event)) for event in self.journal)
        assert dict(again.releases) == durable
        assert again.engines == self.state.engines
        assert (again.wanted, again.revision) == (self.state.wanted, self.state.revision)
        assert again.routed == self.state.routed
