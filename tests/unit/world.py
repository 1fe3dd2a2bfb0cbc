"""A whole Interlock in one process and in virtual time: controller, fake cluster, gateways, clients."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from runtime.control.aggregator import MemoryMetrics
from runtime.control.controller import Controller
from runtime.control.health import Checkup
from runtime.control.journal import MemoryJournal
from runtime.control.planner import Planner
from runtime.control.roster import MemoryRoster
from runtime.core.metering.usage import Usage, total
from runtime.core.model_set.digest import Content
from runtime.core.model_set.model_set import parse
from runtime.core.requests.ask import Ask
from runtime.core.swap import events as ev
from runtime.core.views.status import status
from runtime.errors import EngineUnavailable, NoManager
from runtime.observe.exposition import text_of
from runtime.store.asynchronous.budgets import AsyncBudgets, BatchedBudgets
from runtime.store.asynchronous.ledger import AsyncLedger, GroupCommit
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.testing.cluster import FakeCluster
from runtime.testing.inline import InlineExecutor
from runtime.testing.virtual_time import LoopClock
from runtime.traffic.admission import Admission
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter
from runtime.walking.context import RequestContext
from tests.unit.fresh_store import fresh_store


def document(version=1, *, writer=None, router=None, **changes):
    """A model set of two fake engines; ``version`` changes the writer and nothing of the router."""
    return {
        "name": "support",
        "engines": {
            "router": {"kind": "fake", "time_to_first_token": "5ms", **(router or {})},
            "writer": {
                "kind": "fake",
                "load": "20s",
                "time_to_first_token": "50ms",
                "inter_token": "20ms",
                "tokens": 20,
                "reply": f"v{version}-",
                **(writer or {}),
            },
        },
        "chains": {
            "agent": {
                "deadline": "30s",
                "steps": [
                    {"id": "triage", "route": {"engine": "router", "choices": {"a": ["bill"], "b": ["bug"]}}},
                    {
                        "id": "answer",
                        "generate": {
                            "engine": "writer",
                            "prompt": "{{ steps.triage.choice }} v" + str(version),
                        },
                    },
                ],
                "answer": "answer",
                "samples": [{"messages": [{"role": "user", "content": "my bill"}]}],
            }
        },
        "rollback_window": "60s",
        **changes,
    }


def content(version=1, **options):
    """The content of ``document(version, **options)``."""
    return content_of(document(version, **options))


def content_of(declared):
    """The content of a whole document."""
    return Content.of(parse(declared, "set.yaml", lambda name: name), {})


class LocalManager:
    """The manager as gateways see it, without a network. ``lost`` names gateways that it cannot hear."""

    def __init__(self, controller, cluster):
        self.controller = controller
        self.cluster = cluster
        self.lost = set()
        self._gone = asyncio.Event()

    def hang_up(self):
        """Be away from now on, as a manager whose process has ended: open polls break."""
        self.controller = None
        self.break_polls()

    def break_polls(self):
        """End the polls that wait for a table, as a network does that breaks."""
        self._gone.set()
        self._gone = asyncio.Event()

    def _hub(self, gateway):
        if gateway in self.lost:
            raise EngineUnavailable("the manager cannot be reached")
        if self.controller is None:
            raise NoManager("the manager is away")
        return self.controller.hub

    async def next_table(self, report):
        return await self._unless_gone(self._hub(report.gateway).next_table(report))

    async def changes(self, after):
        if self.controller is None:
            raise NoManager("the manager is away")
        return await self._unless_gone(self.controller.feed.heard(after))

    async def _unless_gone(self, asked):
        poll = asyncio.ensure_future(asked)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done():
                raise EngineUnavailable("the manager went away")
            return poll.result()
        finally:
            poll.cancel()
            gone.cancel()

    async def report(self, report):
        return self._hub(report.gateway).report(report)

    async def activity(self, told):
        self._hub(told.gateway).activity.take(told)

    async def leave(self, gateway):
        self._hub(gateway).leave(gateway)

    async def count(self, told):
        self._hub(told.source)
        await self.controller.metrics.take(told)

    async def metrics(self, told):
        self._hub(told.source)
        return text_of(await self.controller.metrics.scrape(told))

    async def status(self):
        await self.controller.until_recovered()
        return self._status(self.controller.state)

    async def health(self):
        if self.controller is None:
            raise NoManager("the manager is away")
        return (await self.checkup().health()).as_json()

    def checkup(self):
        return Checkup(self.controller, self.cluster, LoopClock(), self.ask_store, silent_after=5.0)

    async def ask_store(self):
        """Answer as a store does that is well."""

    async def command(self, command):
        return self._status(await self.controller.command(command))

    def _status(self, state):
        return status(state, self.controller.hub.activity.of(state.gateways))

    async def plan(self, wanted):
        planned = await Planner(self.cluster).plan(content_of(wanted), self.controller.state)
        return planned.as_json()

    async def audit(self, limit):
        entries = self.controller._committed._journal.journal.entries
        return [entry.as_json() for entry in reversed(entries[-limit:])]


class Directory:
    """One gateway's way to the engines; those in ``unreachable`` (by digest) refuse its ping, those in
    ``hanging`` never answer it."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.unreachable = set()
        self.hanging = set()
        self.kept = set()

    @property
    def clients(self):
        return len(self.kept)

    async def retain(self, engines):
        self.kept = set(engines)

    async def resolve(self, engine):
        if engine in self.unreachable:
            raise EngineUnavailable(f"no answer from engine {engine[:12]}")
        if engine in self.hanging:
            await asyncio.Event().wait()
        return await self._cluster.resolve(engine)


@dataclass
class Tally:
    """What the clients saw."""

    answered: int = 0
    failed: list = field(default_factory=list)
    mixed: int = 0
    usage: Usage = field(default_factory=Usage)
    releases: set = field(default_factory=set)


class GatewayLedger(GroupCommit):
    """One gateway's way to the ledger; once it is ``dead``, what it writes gets nowhere."""

    dead = False

    async def write(self, rows, ended=()):
        if not self.dead:
            await super().write(rows, ended)


class World:
    """Use as ``async with World() as world``."""

    def __init__(self, gateways=2, journal=None, cluster=None, stores=None):
        self.clock = LoopClock()
        store = fresh_store()
        self.meters = [Meter() for _ in range(gateways)]
        # One store for all gateways, as each has in life; so one of them counts its warnings.
        self.budgets = Budgets(store, self.clock, [meter.metrics for meter in self.meters[:1]])
        self.ledger = Ledger(store, self.budgets)
        self.keeper = AsyncBudgets(self.budgets, InlineExecutor())
        self.usage = AsyncLedger(self.ledger, InlineExecutor())
        self.ledgers = [GatewayLedger(self.ledger, InlineExecutor()) for _ in range(gateways)]
        self.journal = journal or MemoryJournal()
        self.metrics = MemoryMetrics()
        self.roster = MemoryRoster()
        self.cluster = cluster or FakeCluster(self.clock)
        own = self.cluster.installation.id
        self.controller = self._controller()
        self.manager = LocalManager(self.controller, self.cluster)
        self.directories = [Directory(self.cluster) for _ in range(gateways)]
        self.followers = [
            Follower(
                *(f"gateway-{n}", self.manager, self.directories[n], meter, self.clock),
                heartbeat_s=1.0,
                silence_s=15.0,
                installation=stores[n] if stores else own,
            )
            for n, meter in enumerate(self.meters)
        ]
        reserving = BatchedBudgets(self.budgets, InlineExecutor())
        self.admissions = [
            Admission(follower.routing, self.clock, meter, ledger, reserving)
            for follower, meter, ledger in zip(self.followers, self.meters, self.ledgers, strict=True)
        ]
        self.tally = Tally()
        self._tasks = []

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self.controller.run())]
        self._tasks += [asyncio.create_task(follower.run()) for follower in self.followers]
        return self

    async def __aexit__(self, *exc):
        for task in reversed(self._tasks):
            await self._end(task)
        self.ledger.close()

    def _controller(self):
        return Controller(
            self.journal,
            self.cluster,
            self.clock,
            gateway_silence_s=15.0,
            roster=self.roster,
            ledger=self.usage,
            metrics=self.metrics,
            installation=self.cluster.installation.id,
        )

    async def _end(self, task):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def stop_manager(self):
        """End the manager's process; cluster and gateways stay. Returns what it ended with."""
        self.manager.hang_up()
        self._tasks[0].cancel()
        ended, self._tasks[0] = self._tasks[0], asyncio.create_task(asyncio.sleep(0))
        return (await asyncio.gather(ended, return_exceptions=True))[0]

    def start_manager(self):
        """Start a new manager on the same journal and cluster."""
        self.journal.epoch += 1
        self.controller = self.manager.controller = self._controller()
        self._tasks[0] = asyncio.create_task(self.controller.run())

    async def lose(self, gateway):
        """Let a gateway's process vanish: it says no goodbye."""
        self.manager.lost.add(f"gateway-{gateway}")
        await self._end(self._tasks[1 + gateway])

    @property
    def manager_ended(self):
        return self._tasks[0].done()

    def want(self, wanted, change=None, source="set.yaml"):
        event = ev.Wanted(at=self.clock.wall(), change=change or wanted.digest, source=source, content=wanted)
        self.controller.post(event)

    @property
    def state(self):
        return self.controller.state

    async def until(self, condition, seconds=600):
        async with asyncio.timeout(seconds):
            while not condition(self.state):
                await asyncio.sleep(0.1)

    async def until_live(self, wanted, seconds=600):
        await self.until(lambda s: s.live is not None and s.live.content.digest == wanted.digest, seconds)
        await self.until(lambda s: s.acknowledgement_of(s.live).last is not None, seconds)

    async def admit(self, ask, gateway=0, **known):
        """Let a request in that arrives now, of which more may be known."""
        context = RequestContext("r", **{"arrived": self.clock.now(), **known})
        return await self.admissions[gateway].admit(ask, context)

    async def ask(self, gateway=0, *, stream=True, abandon_after=None, max_tokens=None):
        """One request as a client makes it; says what went wrong in the tally."""
        params = {"max_tokens": max_tokens} if max_tokens else {}
        ask = Ask("agent", [{"role": "user", "content": "my bill"}], params, stream)
        try:
            call = await self.admit(ask, gateway)
            try:
                await call.start()
                text, seen = b"", 0
                async for chunks in call.chunks():
                    text += b"".join(chunk.members for chunk in chunks)
                    seen += len(chunks)
                    if abandon_after is not None and seen >= abandon_after:
                        break
            finally:
                await call.aclose()
        except Exception as error:  # noqa: BLE001 - every failure is counted, whatever it is
            self.tally.failed.append(error)
            return None
        self.tally.answered += 1
        self.tally.usage = self.tally.usage.plus(call.usage)
        self.tally.releases.add(call.release.number)
        if any(
            hop.engine not in {e[:12] for e in call.release.engines.values()}
            for hop in call.hops
            if hop.engine
        ):
            self.tally.mixed += 1
        return call

    def metered(self):
        return total(usage for meter in self.meters for usage in meter.totals.values())

    def leases(self):
        return sum(sum(follower.routing.leases.values()) for follower in self.followers)
