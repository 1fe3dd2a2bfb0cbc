"""Doing what the policy says is due. Each effect ends in the event that tells how it went.

Effects may be cancelled at any await and may be started again after a restart of the manager, so
each asks the cluster what is there before it does anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runtime.clock import TICK, Clock
from runtime.control.aggregator import Aggregator
from runtime.control.cluster import AppStatus, Cluster
from runtime.control.collector import Collector
from runtime.control.hub import Hub
from runtime.control.planner import Planner
from runtime.control.warmup import mismatch, probe, warm
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import refusal
from runtime.core.swap import events as ev
from runtime.core.swap import policy
from runtime.core.swap.release import CANDIDATE
from runtime.core.swap.state import ControlState, EngineRecord
from runtime.core.views.progress import expected_load, of_about
from runtime.errors import EngineUnavailable, InterlockError

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
"""Pause before a set that does not fit is planned once more."""

POLL_SECONDS, POLL_SHARE, POLL_SECONDS_AT_MOST = 0.25, 0.02, 1.0
"""How often the cluster is asked about an application: the longer it takes, the less often. Serve has nothing
to wait on, and each answer takes of the cores that the load wants."""

RELOAD_SECONDS = 10.0
"""Pause before an engine of a release that has served is loaded again after it failed to load."""

CREATE_TRIES = 5
"""How often an application is asked for while the cluster does not answer."""

CREATE_RETRY_SECONDS = 2.0
"""Pause before it is asked for again; together as long as Serve's controller takes to come back."""

SLEEP_LIMIT_SECONDS = 120.0
"""How long a sleep or a wake may take before it is asked for again: a call that hangs would stay for ever."""

COLLECT_LIMIT_SECONDS = 10.0
"""How long an engine that is to go may take to tell which hops have ended on it, each time it is asked."""

COLLECT_RETRY_SECONDS = 2.0
"""Pause before it is asked again."""

UNTOLD_LIMIT_SECONDS = 30.0
"""How long an engine that does not tell keeps what it takes: a broken one may never tell."""

UNKEPT_LIMIT_SECONDS = 1800.0
"""The same while the ledger does not take what it tells: with its replicas it would be lost. While the store
is away, nothing that follows could be journaled either."""

IDLE_LIMIT_SECONDS = 60.0
"""How long an engine without leases is waited for. What is still in flight then has no client left."""

IDLE_POLL_SECONDS = 0.1
"""How often an engine is asked whether it is idle."""


def poll_seconds(waited: float) -> float:
    """Return how long to wait before a load that has taken ``waited`` seconds is asked about again."""
    return min(max(POLL_SECONDS, waited * POLL_SHARE), POLL_SECONDS_AT_MOST)


@dataclass
class _Load:
    """A load under way: when it began on both clocks, and how many seconds it took last, if ever."""

    engine: str
    name: str
    """What sets call the engine, for people."""
    begun: float
    since: float
    expected: float | None
    shown: AppStatus | None = None
    """What the cluster said of it last."""


def _so_far(status: AppStatus | None) -> str:
    """Return how far a load had come that has taken too long."""
    if status is None:
        return ""
    rest = status.waits or (f"the others: {status.stage}" if status.stage else "")
    return f": {status.ready} of {status.target} replicas run" + (f", {rest}" if rest else "")


class Effects:
    """Runs effects against the cluster, the hub and the clock. ``post`` is for progress only."""

    def __init__(
        self,
        cluster: Cluster,
        hub: Hub,
        clock: Clock,
        post: Callable[[ev.Event], None],
        gateway_silence_s: float,
        collector: Collector,
        metrics: Aggregator,
    ) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._collector = collector
        self._planner = Planner(cluster)
        self._hub = hub
        self._clock = clock
        self._post = post
        self._gateway_silence_s = gateway_silence_s

    async def run(self, effect: policy.Effect, state: ControlState) -> ev.Event:  # noqa: C901 - a table
        """Run ``effect``, which was due in ``state``, and return what came of it."""
        match effect:
            case policy.LoadEngine(engine):
                return await self._load(engine, state)
            case policy.UnloadEngine(engine):
                return await self._unload(engine)
            case policy.SleepEngine(engine):
                return await self._sleep(engine)
            case policy.WakeEngine(engine):
                async with asyncio.timeout(SLEEP_LIMIT_SECONDS):
                    await self._cluster.wake(engine)
                return ev.EngineWoken(at=self._clock.wall(), engine=engine)
            case policy.PlanRelease(release):
                return await self._plan(release, state)
            case policy.WarmRelease(release):
                return await self._warm(release, state)
            case policy.ProbeRelease(release):
                return await self._probe(release, state)
            case policy.AwaitIdle(release, engines):
                await asyncio.gather(*(self._until_idle(engine) for engine in engines))
                return ev.ReleaseIdle(at=self._clock.wall(), release=release)
            case policy.AwaitDeadline() | policy.AwaitAcknowledgement() | policy.AwaitRoom():
                return await self._until_over(effect)
            case policy.WatchGateway(gateway):
                await self._hub.until_silent(gateway, self._gateway_silence_s)
                return ev.GatewayLost(at=self._clock.wall(), gateway=gateway)
            case policy.HearGateways():
                await self._hub.roll.until_complete(self._gateway_silence_s)
                return ev.GatewaysHeard(at=self._clock.wall())

    async def _until_over(
        self, effect: policy.AwaitDeadline | policy.AwaitAcknowledgement | policy.AwaitRoom
    ) -> ev.Event:
        await self._until(effect.until)
        match effect:
            case policy.AwaitDeadline(release, _, reason):
                return ev.DeadlinePassed(at=self._clock.wall(), release=release, reason=reason)
            case policy.AwaitAcknowledgement(release):
                return ev.GatewaysLag(at=self._clock.wall(), release=release)
            case policy.AwaitRoom(release):
                return ev.RoomAwaited(at=self._clock.wall(), release=release)

    async def _until(self, wall: float) -> None:
        while (left := wall - self._clock.wall()) > TICK:
            await asyncio.sleep(left)

    # -- engines ----------------------------------------------------------------------------------

    async def _load(self, engine: str, state: ControlState) -> ev.Event:
        record = state.engines[engine]
        limit = record.spec.load_timeout if record.spec else 0.0
        if record.reason is not None:
            await asyncio.sleep(RELOAD_SECONDS)
        name, begun = state.engine_name(engine), self._clock.now()
        load = _Load(engine, name, begun, self._clock.wall(), expected_load(state, engine))
        try:
            async with asyncio.timeout(limit):
                await self._create(record, load)
                return await self._until_running(load)
        except TimeoutError:
            reason = f"{name} did not come up within {limit:g} s (load_timeout){_so_far(load.shown)}"
            return ev.EngineFailed(at=self._clock.wall(), engine=engine, reason=reason)
        except InterlockError as error:
            return ev.EngineFailed(at=self._clock.wall(), engine=engine, reason=f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - what an engine's settings provoke fails the candidate
            _log.exception("engine %s could not be created", engine[:SHORT])
            reason = f"{name}: {type(error).__name__}: {error}"
            return ev.EngineFailed(at=self._clock.wall(), engine=engine, reason=reason)

    async def _create(self, record: EngineRecord, load: _Load) -> None:
        """Ask for the application. A cluster whose own parts are being restarted is asked again."""
        for tries_left in reversed(range(CREATE_TRIES)):
            try:
                await self._cluster.create(record)
            except EngineUnavailable as error:
                if not tries_left:
                    raise
                self._tell_load(load, f"is asked for again: {error}")
                await asyncio.sleep(CREATE_RETRY_SECONDS)
            else:
                return

    async def _until_running(self, load: _Load) -> ev.Event:
        while True:
            status = await self._observe(load.engine)
            if status is not None and status.failure is not None:
                reason = f"{load.name}: {status.failure}"
                return ev.EngineFailed(at=self._clock.wall(), engine=load.engine, reason=reason)
            if status is not None and status != load.shown:
                replicas = f"{status.ready} of {status.target} replicas run"
                text = f"{status.stage}, {replicas}" if status.stage else replicas
                self._tell_load(load, f"{text}; {status.waits}" if status.waits else text, status)
                load.shown = status
            if status is not None and status.running:
                seconds = self._clock.now() - load.begun
                return ev.EngineLoaded(at=self._clock.wall(), engine=load.engine, seconds=seconds)
            await asyncio.sleep(poll_seconds(self._clock.now() - load.begun))

    def _tell_load(self, load: _Load, text: str, status: AppStatus | None = None) -> None:
        """Tell how far a load is. Call this for a change only: it is logged."""
        times = of_about(self._clock.now() - load.begun, load.expected)
        _log.info("engine %s: %s, %s", load.engine[:SHORT], text, times)
        subject = f"engine {load.engine}"
        stage, waits = (status.stage, status.waits) if status is not None else (None, None)
        at = self._clock.wall()
        self._post(
            ev.Progressed(at=at, subject=subject, text=text, stage=stage, since=load.since, waits=waits)
        )

    async def _observe(self, engine: str) -> AppStatus | None:
        """Return the application's status. A cluster that does not answer for a moment is asked again."""
        try:
            return await self._cluster.observe(engine)
        except EngineUnavailable as error:
            _log.info("the cluster does not tell of engine %s: %s", engine[:SHORT], error)
            return None

    async def _unload(self, engine: str) -> ev.Event:
        if await self._cluster.observe(engine) is not None:
            await self._until_idle(engine)
            await self._collect_last(engine)
            await self._cluster.delete(engine)
            while await self._cluster.observe(engine) is not None:
                await asyncio.sleep(POLL_SECONDS)
        return ev.EngineUnloaded(at=self._clock.wall(), engine=engine)

    async def _collect_last(self, engine: str) -> None:
        """Bring what the engine alone knows of into the ledger; with its replicas it would be lost."""
        await self._metrics.ask(engine)
        begun = self._clock.now()
        while (failed := await self._try_to_collect(engine)) is not None:
            told = not isinstance(failed, EngineUnavailable | TimeoutError)
            if self._clock.now() - begun >= (UNKEPT_LIMIT_SECONDS if told else UNTOLD_LIMIT_SECONDS):
                _log.error(
                    "engine %s goes, and what ended on it is not in the ledger: %r", engine[:SHORT], failed
                )
                return
            text = f"waits until what ended on it is in the ledger: {failed}"
            self._post(ev.Progressed(at=self._clock.wall(), subject=f"engine {engine}", text=text))
            await asyncio.sleep(COLLECT_RETRY_SECONDS)

    async def _try_to_collect(self, engine: str) -> Exception | None:
        """Return what stood in the way, None if nothing did."""
        try:
            async with asyncio.timeout(COLLECT_LIMIT_SECONDS):
                await self._collector.collect(engine)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and told
            _log.warning("what ended on engine %s is collected later: %r", engine[:SHORT], error)
            return error
        return None

    async def _sleep(self, engine: str) -> ev.Event:
        """Let the engine sleep once it is idle: sleeping under a request can hang or crash vLLM."""
        while not await self._is_idle(engine):
            await asyncio.sleep(IDLE_POLL_SECONDS)
        async with asyncio.timeout(SLEEP_LIMIT_SECONDS):
            await self._cluster.sleep(engine)
        return ev.EngineSlept(at=self._clock.wall(), engine=engine)

    async def _until_idle(self, engine: str) -> None:
        """Return once nothing is in flight, or the limit has passed: a broken engine may never say so."""
        try:
            async with asyncio.timeout(IDLE_LIMIT_SECONDS):
                while not await self._is_idle(engine):
                    await asyncio.sleep(IDLE_POLL_SECONDS)
        except TimeoutError:
            _log.warning("engine %s is not idle after %g s; going on", engine[:SHORT], IDLE_LIMIT_SECONDS)

    async def _is_idle(self, engine: str) -> bool:
        """Ask the engine. One without an application has nothing in flight; one that fails is asked again."""
        try:
            return await self._cluster.idle(engine)
        except EngineUnavailable as error:
            _log.info("engine %s does not say whether it is idle: %s", engine[:SHORT], error)
        try:
            status = await self._cluster.observe(engine)
        except EngineUnavailable as error:
            _log.info("the cluster does not tell of engine %s: %s", engine[:SHORT], error)
            return False
        return status is None or status.ready == 0

    # -- releases ---------------------------------------------------------------------------------

    async def _plan(self, number: int, state: ControlState) -> ev.Event:
        content = state.releases[number].content
        assert content is not None  # noqa: S101 - only a release with content is ever planned
        plan = await self._planner.plan(content, state)
        if not plan.fits:
            # What has just gone may take a moment to be counted as free, by Ray and by the devices.
            await asyncio.sleep(SETTLE_SECONDS)
            plan = await self._planner.plan(content, state)
        reason = refusal(plan)
        if reason is not None:
            return ev.ReleaseFailed(at=self._clock.wall(), release=number, reason=reason)
        return ev.ReleasePlanned(at=self._clock.wall(), release=number, plan=plan)

    async def _warm(self, number: int, state: ControlState) -> ev.Event:
        release = state.releases[number]
        assert release.content is not None  # noqa: S101 - only a release with content is ever loaded
        begun = self._clock.now()
        try:
            warmed = await warm(
                *(release.content, self._cluster, partial(self._tell_warmup, number), self._tag(number))
            )
        except InterlockError as error:
            if release.state not in CANDIDATE:
                raise  # a release that has served is warmed again until it works
            return ev.ReleaseFailed(at=self._clock.wall(), release=number, reason=str(error))
        return ev.ReleaseWarmed(
            at=self._clock.wall(),
            release=number,
            usage=warmed.usage,
            answers=warmed.answers,
            seconds=self._clock.now() - begun,
        )

    async def _probe(self, number: int, state: ControlState) -> ev.Event:
        release = state.releases[number]
        assert release.content is not None  # noqa: S101 - only a release with content is ever warmed
        probed = await probe(release.content, self._cluster, self._tag(number))
        reason = mismatch(release.answers, probed.answers)
        if reason is not None:
            return ev.ProbeFailed(at=self._clock.wall(), release=number, reason=reason, usage=probed.usage)
        return ev.ReleaseProbed(at=self._clock.wall(), release=number, usage=probed.usage)

    def _tag(self, release: int) -> HopTag:
        return HopTag("", release=release, purpose=Purpose.WARMUP, started=self._clock.wall())

    def _tell_warmup(self, number: int, text: str) -> None:
        self._post(ev.Progressed(at=self._clock.wall(), subject=f"release {number}", text=text))
