"""The single-writer loop: the only place where the control state changes.

Everything that happens arrives in one inbox. Each event is folded, written to the journal if it is
durable, and only then counts; then the policy's decisions follow in the same way; then the table is
published and the running effects are brought in line with what is due.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial

from runtime.clock import Clock
from runtime.control.aggregator import Aggregator, MemoryMetrics, MetricsPort
from runtime.control.cluster import Cluster
from runtime.control.collector import Collector, LedgerPort, NoLedger
from runtime.control.effects import Effects
from runtime.control.hub import Hub
from runtime.control.journal import JournalPort, Length
from runtime.control.retention import NoRetention, RetentionPort, retain
from runtime.control.roster import Roster
from runtime.control.waits import WaitLog
from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev
from runtime.core.swap import policy
from runtime.core.swap.commands import Command, check
from runtime.core.swap.effects import Effect, Subject
from runtime.core.swap.fold import fold
from runtime.core.swap.state import EXISTING, ControlState
from runtime.core.views.audit import AuditEntry, entry_of, refused
from runtime.core.views.progress import moves
from runtime.errors import CommandRefused, EngineUnavailable, Fenced, IllegalTransition, InternalError
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)

_TAKING, _DECIDING = "take events", "decide"
"""Under which names it is told that an event could not be taken, or that the state could not be settled."""


@dataclass(frozen=True)
class _Ended:
    """An effect's task is over: with an event, or with None if it was cancelled or broke."""

    effect: Effect
    event: ev.Event | None


@dataclass(frozen=True)
class _Asked:
    """An operator's command; ``done`` gets the state that it led to, or the reason why it was refused."""

    command: Command
    done: asyncio.Future[ControlState]


@dataclass(frozen=True)
class _SettleAgain:
    """The state could not be settled a while ago."""


RECOVERY_SECONDS = 5.0
"""How long who asks for the state waits for a manager that has just started."""

_Item = ev.Event | _Ended | _Asked | _SettleAgain


def _is_told(item: _Item) -> bool:
    """Say whether an item only tells something, so that what comes right after it may be told, too.

    What a command does and what an effect found out depends on what has been decided by then.
    """
    if isinstance(item, _Ended):
        return item.event is None
    return isinstance(item, ev.GatewayReported | ev.Progressed)


class Controller:
    """Folds events, journals them, decides, publishes, and keeps the due effects running."""

    def __init__(
        self,
        journal: JournalPort,
        cluster: Cluster,
        clock: Clock,
        gateway_silence_s: float,
        ledger: LedgerPort | None = None,
        metrics: MetricsPort | None = None,
        installation: str = "",
        roster: Roster | None = None,
        retention: RetentionPort | None = None,
    ) -> None:
        self.state = ControlState()
        self.loops = LoopWatch("manager", clock)
        self.metrics = Aggregator(
            cluster, metrics or MemoryMetrics(), lambda: self.state, self.loops.family, clock
        )
        self.hub = Hub(clock, self.post, installation, roster, journal.epoch)
        self._journal, self._length = journal, Length(journal, self.loops)
        self._cluster = cluster
        self._clock = clock
        self._retention = retention or NoRetention()
        self._collector = Collector(cluster, ledger or NoLedger(), clock)
        self._effects = Effects(
            cluster, self.hub, clock, self.post, gateway_silence_s, self._collector, self.metrics
        )
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._due: frozenset[Effect] = frozenset()
        """What was due when the state was last settled."""
        self._started: set[Effect] = set()
        """Effects that run and have not been told to stop."""
        self._running: dict[Subject, asyncio.Task[ev.Event | None]] = {}
        """Tasks by what they work on, with those that have been told to stop and have not ended."""
        self._waits = WaitLog(clock)
        self._unsettled = False
        """Whether settling broke, and waits to be tried again."""
        self._over = False
        self._recovered = asyncio.Event()
        self._following: _Item | None = None
        """What is taken next, and is not in the inbox any more."""

    def post(self, event: ev.Event) -> None:
        """Put an event into the inbox."""
        self._inbox.put_nowait(event)

    async def command(self, command: Command) -> ControlState:
        """Carry an operator's command out and return the state that it led to.

        Raises:
            CommandRefused: it does not fit the state; nothing was done.
            EngineUnavailable: this manager ends; another takes commands.
            InternalError: it met a bug, and was not carried out.

        """
        if self._over:
            raise EngineUnavailable("this manager has ended; another one is coming")
        asked = _Asked(command, asyncio.get_running_loop().create_future())
        self._inbox.put_nowait(asked)
        return await asked.done

    async def until_recovered(self) -> None:
        """Return once the journal has been read again: before that the state says that nothing exists.

        Raises:
            EngineUnavailable: it has not been within ``RECOVERY_SECONDS``.

        """
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                await self._recovered.wait()
        except TimeoutError as error:
            raise EngineUnavailable("the manager still reads its journal") from error

    async def run(self) -> None:
        """Replay, adopt what exists, then serve the inbox until cancelled.

        Raises:
            Fenced: another manager has taken over; this one has stopped writing.

        """
        beside: list[asyncio.Task[None]] = []
        try:
            await self._recover()  # before it is known which engines there are, none can be asked
            self._recovered.set()
            loops = {
                "collect": lambda: self._collector.run(self._loaded),
                "sweep": self._collector.sweep,
                "retain": lambda: retain(self._retention),
            }
            beside += [asyncio.create_task(self.loops.keep(name, loop)) for name, loop in loops.items()]
            await self._serve()
        finally:
            self._over = True
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._stop_effects()
            self._turn_away()

    def _loaded(self) -> frozenset[str]:
        """Return the engines whose replicas can be asked."""
        return self.state.of_engines.existing

    async def _recover(self) -> None:
        """Fold the journal again and note where the cluster differs from it."""
        self.state = await self._journal.begins()
        self._length.begins = self.state.revision
        for event in await self._journal.replay():
            self.state = self._folded_again(event)
        await self.hub.roll.begin(first=not self.state.revision)
        if self.state.revision:
            await self._commit(ev.ManagerRestarted(at=self._clock.wall()))
        exist = await self._cluster.engines(self.state.engines)
        for engine in list(self.state.engines.values()):
            if engine.state in EXISTING and engine.digest[:SHORT] not in exist:
                await self._commit(ev.EngineMissing(at=self._clock.wall(), engine=engine.digest))
        known = {digest[:SHORT] for digest in self.state.engines}
        for digest in sorted(exist - known):
            await self._commit(ev.EngineFound(at=self._clock.wall(), engine=digest))
        await self._try_to_settle()

    def _folded_again(self, event: ev.Durable) -> ControlState:
        """Return the state after an event of the journal; one that does not fit any more is only counted.

        When it was written it did: an older Interlock's rules were others. What the cluster has is seen next.
        """
        try:
            return fold(self.state, event)
        except IllegalTransition as error:
            _log.error(
                "journal %d does not fit any more: %s: %s", self.state.revision + 1, _line(event), error
            )
            return replace(self.state, revision=self.state.revision + 1)

    async def _serve(self) -> None:
        """Take one item after the other, and settle after each.

        Those that decide nothing by themselves and have come together are settled together: at a cutover
        every gateway reports at once.
        """
        item = await self._inbox.get()
        while True:
            await self._take(item)
            self._following = following = None if self._inbox.empty() else self._inbox.get_nowait()
            more = following is not None and _is_told(following)
            if not (_is_told(item) and (more or self._unsettled)):
                await self._try_to_settle()
                await self._length.look(self.state)
            item = await self._inbox.get() if following is None else following

    async def _take(self, item: _Item) -> None:
        """Take an item; one that breaks what takes it is left out, logged, and told to health.

        It must not end the manager: the next one would meet it again, or another like it.
        """
        if isinstance(item, _Asked):
            await self._answer(item)
            return
        event = self._retire(item) if isinstance(item, _Ended) else item
        if event is None or isinstance(event, _SettleAgain):
            return
        try:
            await self._commit(event)
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it breaks by, what comes after it counts
            pause = self._broke(_TAKING, error, f"event {type(event).__name__} is left out")
            if isinstance(item, _Ended):  # it is due as before, and would be done again at once
                self._start(item.effect, asyncio.sleep(pause, None))

    async def _answer(self, asked: _Asked) -> None:
        """Carry a command out; whatever comes of it, whoever asked gets an answer."""
        try:
            state = await self._obey(asked.command)
        except CommandRefused as refusal:
            _fail(asked, refusal)
        except Exception as error:
            _fail(asked, InternalError(f"the command broke the manager's loop: {type(error).__name__}"))
            if isinstance(error, Fenced):
                raise
            self._broke(_TAKING, error, f"command {asked.command.action} was not carried out")
        except asyncio.CancelledError:
            _fail(asked, EngineUnavailable("this manager ends; ask again what became of the command"))
            raise
        else:
            if not asked.done.done():
                asked.done.set_result(state)

    async def _obey(self, command: Command) -> ControlState:
        try:
            event = check(self.state, command, self._clock.wall())
        except CommandRefused as refusal:
            await self._journal.note(refused(command, refusal, self.state, self._clock.wall()))
            raise
        await self._commit(event)
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
            pause = self._broke(_DECIDING, error, "the state could not be settled")
            if not self._unsettled:
                self._unsettled = True
                asyncio.get_running_loop().call_later(pause, self._settle_later)
        else:
            self._unsettled = False
            self.loops.recovered(_DECIDING)

    def _settle_later(self) -> None:
        self._unsettled = False
        self._inbox.put_nowait(_SettleAgain())

    def _broke(self, loop: str, error: Exception, what: str) -> float:
        _log.error("%s", what)
        return self.loops.broke(loop, error)

    def _turn_away(self) -> None:
        """Answer those whose commands wait: nobody takes them any more."""
        waiting = [self._following]
        while not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        for item in waiting:
            if isinstance(item, _Asked) and not item.done.done():
                _fail(item, EngineUnavailable("this manager ends; another one is coming"))

    def _retire(self, ended: _Ended) -> ev.Event | None:
        """Take an ended effect off the list. What it found out counts only if it was still due."""
        self._running.pop(ended.effect.subject)
        self._started.discard(ended.effect)
        return ended.event if ended.effect in self._due else None

    async def _commit(self, event: ev.Event) -> None:
        try:
            folded = fold(self.state, event)
        except IllegalTransition:
            _log.exception("event %s does not fit the state and is left out", type(event).__name__)
            return
        if isinstance(event, ev.Durable):
            await self._append(folded.revision, event, entry_of(event, self.state, folded))
            _log.info("journal %d: %s", folded.revision, _line(event))
            for line in moves(self.state, folded):
                _log.info("%s", line)
        self.state = folded

    async def _append(self, revision: int, event: ev.Durable, entry: AuditEntry | None) -> None:
        """Write an event. If that breaks in a way that leaves open whether it was, the journal is read."""
        try:
            await self._journal.append(revision, event, entry)
        except Fenced:
            raise
        except Exception:
            there = await self._journal.last()
            if there == revision - 1:
                raise
            if there != revision:
                message = f"the journal has {there} events where this manager has folded {revision - 1}"
                raise Fenced(f"{message}: it stops, and another one reads it anew") from None
            _log.exception("event %d was written all the same", revision)

    async def _settle(self) -> None:
        while (decision := policy.decide(self.state, self._clock.wall())) is not None:
            before = self.state
            await self._commit(decision)
            if self.state is before:
                raise IllegalTransition(f"the policy decided what the table refuses: {_line(decision)}")
        self.hub.publish(policy.release_table(self.state))
        self._waits.tell(self.state)
        self._reconcile()

    # -- effects ----------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        self._due = policy.due(self.state)
        for effect in self._started - self._due:
            self._running[effect.subject].cancel()
            self._started.discard(effect)
        for effect in self._due - self._started:
            # An effect that was cancelled keeps its subject until it has really ended: a load that
            # is still asking for an application must not overlap with the unload that follows.
            if effect.subject not in self._running:
                self._start(effect, self._run(effect))

    def _start(self, effect: Effect, run: Coroutine[None, None, ev.Event | None]) -> None:
        task = asyncio.create_task(run)
        task.add_done_callback(partial(self._ended, effect))
        self._running[effect.subject] = task
        self._started.add(effect)

    def _ended(self, effect: Effect, task: asyncio.Task[ev.Event | None]) -> None:
        """Tell the loop. A task that is cancelled before its first step ends, too, without running."""
        self._inbox.put_nowait(_Ended(effect, None if task.cancelled() else task.result()))

    async def _run(self, effect: Effect) -> ev.Event | None:
        name = type(effect).__name__
        try:
            event = await self._effects.run(effect, self.state)
        except Exception as error:  # noqa: BLE001 - whatever an effect breaks by, the loop goes on and tries again
            pause = self._broke(name, error, f"effect {effect} broke")
            text = f"is tried again: {type(error).__name__}: {error}"
            self.post(ev.Progressed(at=self._clock.wall(), subject=effect.shown, text=text))
            await asyncio.sleep(pause)
            return None
        self.loops.recovered(name)
        return event

    async def _stop_effects(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fail(asked: _Asked, error: Exception) -> None:
    if not asked.done.done():
        asked.done.set_exception(error)


def _line(event: ev.Event) -> str:
    """Return an event as a log line: content is known by its digest, not by its text."""
    shown = event.model_dump(exclude={"at", "content", "type"}, exclude_none=True)
    return f"{type(event).__name__} {shown}"
