"""The single-writer loop: the only place where the control state changes.

Everything that happens arrives in one inbox. Each event is committed (``control.committed``); then the
policy's decisions follow in the same way; then the table is published and the running effects are brought
in line with what is due.
"""

from __future__ import annotations

import asyncio
import logging

from runtime.clock import Clock
from runtime.control.aggregator import Aggregator, MemoryMetrics, MetricsPort
from runtime.control.cluster import Cluster
from runtime.control.collector import CollectedLedger, Collector, NoCollectedLedger
from runtime.control.committed import CommittedState
from runtime.control.effects import Effects
from runtime.control.feed import Feed
from runtime.control.hub import Hub
from runtime.control.inbox import EffectEnded, Inbox, Item, PendingCommand, SettleAgain, is_report
from runtime.control.journal import JournalPort
from runtime.control.journal_writer import line_of
from runtime.control.recovery import Recovery
from runtime.control.retention import NoRetention, RetentionPort, retain
from runtime.control.roster import Roster
from runtime.control.running import RunningEffects
from runtime.control.waits import WaitLog
from runtime.core.swap import events as ev
from runtime.core.swap import policy
from runtime.core.swap.commands import Command, check
from runtime.core.swap.state import ControlState
from runtime.core.views.audit import refused
from runtime.errors import CommandRefused, EngineUnavailable, Fenced, IllegalTransition, InternalError
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)

_TAKE_EVENTS, _DECIDE = "take events", "decide"
"""The names of the loop's two parts in health and metrics: taking events, and settling the state."""


class Controller:
    """Commits events, decides, publishes, and keeps the due effects running."""

    def __init__(
        self,
        journal: JournalPort,
        cluster: Cluster,
        clock: Clock,
        gateway_silence_s: float,
        ledger: CollectedLedger | None = None,
        metrics: MetricsPort | None = None,
        installation: str = "",
        roster: Roster | None = None,
        retention: RetentionPort | None = None,
    ) -> None:
        self.loops = LoopWatch("manager", clock)
        self.metrics = Aggregator(
            cluster, metrics or MemoryMetrics(), lambda: self.state, self.loops.family, clock
        )
        self.hub = Hub(clock, self.post, installation, roster, journal.epoch)
        self.feed = Feed(clock, journal.epoch)
        self._committed = CommittedState(journal, self.loops, self.feed.observe)
        self._recovery = Recovery(cluster, clock)
        self._clock = clock
        self._retention = retention or NoRetention()
        self._collector = Collector(cluster, ledger or NoCollectedLedger(), clock)
        self._inbox = Inbox()
        effects = Effects(
            cluster, self.hub, clock, self.post, gateway_silence_s, self._collector, self.metrics
        )
        self._running = RunningEffects(effects, self._inbox, lambda: self.state, self.post, self.loops, clock)
        self._waits = WaitLog(clock)

    @property
    def state(self) -> ControlState:
        """The state after all committed events."""
        return self._committed.state

    def post(self, event: ev.Event) -> None:
        """Put an event into the inbox."""
        self._inbox.put(event)

    async def command(self, command: Command) -> ControlState:
        """Carry an operator's command out and return the state that it led to.

        Raises:
            CommandRefused: it does not fit the state; nothing was done.
            EngineUnavailable: this manager ends; another takes commands.
            InternalError: a bug kept it from being carried out.

        """
        return await self._inbox.ask(command)

    async def until_recovered(self) -> None:
        """Return once the journal has been read again: before that the state is empty.

        Raises:
            EngineUnavailable: it has not been within ``RECOVERY_SECONDS``.

        """
        await self._recovery.until_over()

    async def run(self) -> None:
        """Replay, adopt what exists, then serve the inbox until cancelled.

        Raises:
            Fenced: another manager has taken over; this one has stopped writing.

        """
        beside: list[asyncio.Task[None]] = []
        try:
            await self._recover()  # no engine can be asked before the engines are known
            self._recovery.ends()
            loops = {
                "collect": lambda: self._collector.run(self._loaded),
                "sweep": self._collector.sweep,
                "retain": lambda: retain(self._retention),
            }
            beside += [asyncio.create_task(self.loops.keep(name, loop)) for name, loop in loops.items()]
            await self._serve()
        finally:
            self._inbox.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._running.stop()
            self._inbox.turn_away()

    def _loaded(self) -> frozenset[str]:
        """Return the engines whose replicas can be asked."""
        return self.state.of_engines.existing

    async def _recover(self) -> None:
        """Fold the journal again and note where the cluster differs from it."""
        await self._committed.replay()
        await self.hub.roll.begin(first=not self.state.revision)
        if self.state.revision:
            await self._committed.commit(ev.ManagerRestarted(at=self._clock.wall()))
        for event in await self._recovery.differences(self.state):
            await self._committed.commit(event)
        await self._try_to_settle()

    async def _serve(self) -> None:
        """Take one item after the other, and settle after each.

        Those that decide nothing by themselves and have come together are settled together: at a cutover
        every gateway reports at once.
        """
        item = await self._inbox.take()
        while True:
            await self._take(item)
            following = self._inbox.following()
            more = following is not None and is_report(following)
            if not (is_report(item) and (more or self._inbox.settles_again)):
                await self._try_to_settle()
                await self._committed.shorten_journal()
            item = await self._inbox.take()

    async def _take(self, item: Item) -> None:
        """Take an item; one that raises is left out, logged, and reported to health.

        It must not end the manager: the next manager would get it again, or another like it.
        """
        if isinstance(item, PendingCommand):
            await self._answer(item)
            return
        event = self._running.retire(item) if isinstance(item, EffectEnded) else item
        if event is None or isinstance(event, SettleAgain):
            return
        try:
            await self._committed.commit(event)
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it breaks by, what comes after it counts
            pause = self._broke(_TAKE_EVENTS, error, f"event {type(event).__name__} is left out")
            if isinstance(item, EffectEnded):  # it is due as before, and would be done again at once
                self._running.rest(item.effect, pause)

    async def _answer(self, pending: PendingCommand) -> None:
        """Carry a command out; whatever happens, its sender gets an answer."""
        try:
            state = await self._obey(pending.command)
        except CommandRefused as refusal:
            pending.refuse(refusal)
        except Exception as error:
            pending.refuse(InternalError(f"the command broke the manager's loop: {type(error).__name__}"))
            if isinstance(error, Fenced):
                raise
            self._broke(_TAKE_EVENTS, error, f"command {pending.command.action} was not carried out")
        except asyncio.CancelledError:
            pending.refuse(EngineUnavailable("this manager ends; ask again what became of the command"))
            raise
        else:
            if not pending.done.done():
                pending.done.set_result(state)

    async def _obey(self, command: Command) -> ControlState:
        try:
            event = check(self.state, command, self._clock.wall())
        except CommandRefused as refusal:
            await self._committed.note(refused(command, refusal, self.state, self._clock.wall()))
            raise
        await self._committed.commit(event)
        await self._try_to_settle()
        return self.state

    async def _try_to_settle(self) -> None:
        """Settle; if that breaks, what is running goes on, and it is tried again after a pause.

        A manager that ended by it would fold the same state again, and end again.
        """
        try:
            await self._settle()
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it breaks by, events and commands go on
            pause = self._broke(_DECIDE, error, "the state could not be settled")
            self._inbox.settle_after(pause)
        else:
            self._inbox.settles_again = False
            self.loops.recovered(_DECIDE)

    def _broke(self, loop: str, error: Exception, message: str) -> float:
        _log.error("%s", message)
        return self.loops.broke(loop, error)

    async def _settle(self) -> None:
        while (decision := policy.decide(self.state, self._clock.wall())) is not None:
            before = self.state
            await self._committed.commit(decision)
            if self.state is before:
                raise IllegalTransition(f"the policy decided what the table refuses: {line_of(decision)}")
        if self.state.routed.revision != self.hub.version:  # rarely, and each report settles
            self.hub.publish(policy.routing_table(self.state))
        self._waits.log(self.state)
        self._running.reconcile(policy.due(self.state))
