"""Running the effects that the policy says are due (``core.swap.effects``). Each ends in an event.

Effects may be cancelled at any await and may be started again after a restart of the manager, so
each asks the cluster what is there before it does anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from runtime.clock import TICK, Clock
from runtime.control.aggregator import Aggregator
from runtime.control.cluster import Cluster
from runtime.control.collector import Collector
from runtime.control.hub import Hub
from runtime.control.loads import Loads
from runtime.control.planner import Planner
from runtime.control.warmup import mismatch, probe, warm
from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import refusal
from runtime.core.swap import effects as due
from runtime.core.swap import events as ev
from runtime.core.swap.release import CANDIDATE
from runtime.core.swap.state import ControlState, release_of
from runtime.errors import EngineUnavailable, InterlockError

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
"""Pause before a set that does not fit is planned once more."""

POLL_SECONDS = 0.25
"""How often the cluster is asked whether an application is gone."""

SLEEP_LIMIT_SECONDS = 120.0
"""How long a sleep or a wake may take before it is started again: a call that hangs would stay for ever."""

COLLECT_LIMIT_SECONDS = 10.0
"""How long an engine that is to go may take to report its ended hops, each time it is asked."""

COLLECT_RETRY_SECONDS = 2.0
"""Pause before it is asked again."""

SILENT_LIMIT_SECONDS = 30.0
"""How long an engine that does not answer keeps its devices: a broken one may never answer."""

UNWRITTEN_LIMIT_SECONDS = 1800.0
"""The same while the ledger does not take its hops, which would be lost with its replicas. While the store is
away, nothing that follows could be journaled either."""

IDLE_LIMIT_SECONDS = 60.0
"""How long an engine without leases is waited for. What is still in flight then has no client left."""

IDLE_POLL_SECONDS = 0.1
"""How often an engine is asked whether it is idle."""


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
        self._loads = Loads(cluster, clock, post)
        self._hub = hub
        self._clock = clock
        self._post = post
        self._gateway_silence_s = gateway_silence_s

    async def run(self, effect: due.Effect, state: ControlState) -> ev.Event:
        """Run ``effect``, which was due in ``state``, and return what came of it."""
        match effect:
            case due.LoadEngine():
                return await self._loads.run(effect, state)
            case due.PlanRelease():
                return await self._plan(effect.release, state)
            case due.WarmRelease():
                return await self._warm(effect.release, state)
            case due.ProbeRelease():
                return await self._probe(effect.release, state)
            case _:
                await self._do(effect)
                return effect.ended(self._clock.wall())

    async def _do(self, effect: due.EndsOneWay) -> None:
        """Run an effect that ends in one event only."""
        match effect:
            case due.UnloadEngine(engine):
                await self._unload(engine)
            case due.SleepEngine(engine):
                await self._sleep(engine)
            case due.WakeEngine(engine):
                async with asyncio.timeout(SLEEP_LIMIT_SECONDS):
                    await self._cluster.wake(engine)
            case due.AwaitIdle(_, engines):
                await asyncio.gather(*(self._until_idle(engine) for engine in engines))
            case due.UntilTime():
                await self._until(effect.until)
            case due.WatchGateway(gateway):
                await self._hub.until_silent(gateway, self._gateway_silence_s)
            case due.AwaitGateways():
                await self._hub.roll.until_complete(self._gateway_silence_s)
            case _:
                raise TypeError(f"nobody runs {effect}")

    async def _until(self, wall: float) -> None:
        while (left := wall - self._clock.wall()) > TICK:
            await asyncio.sleep(left)

    # -- engines ----------------------------------------------------------------------------------

    async def _unload(self, engine: str) -> None:
        if await self._cluster.observe(engine) is not None:
            await self._until_idle(engine)
            await self._collect_last(engine)
            await self._cluster.delete(engine)
            while await self._cluster.observe(engine) is not None:
                await asyncio.sleep(POLL_SECONDS)

    async def _collect_last(self, engine: str) -> None:
        """Collect what only the engine has counted: it would be lost with its replicas."""
        await self._metrics.collect(engine)
        begun = self._clock.now()
        while (failed := await self._try_to_collect(engine)) is not None:
            answered = not isinstance(failed, EngineUnavailable | TimeoutError)
            if self._clock.now() - begun >= (UNWRITTEN_LIMIT_SECONDS if answered else SILENT_LIMIT_SECONDS):
                _log.error(
                    "engine %s is deleted, and hops that ended on it are not in the ledger: %r",
                    engine[:SHORT],
                    failed,
                )
                return
            text = f"waits until its ended hops are in the ledger: {failed}"
            self._post(ev.Progressed(at=self._clock.wall(), subject=f"engine {engine}", text=text))
            await asyncio.sleep(COLLECT_RETRY_SECONDS)

    async def _try_to_collect(self, engine: str) -> Exception | None:
        """Collect the hops that ended on the engine; return the error if that failed."""
        try:
            async with asyncio.timeout(COLLECT_LIMIT_SECONDS):
                await self._collector.collect(engine)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and shown
            _log.warning("hops that ended on engine %s could not be collected yet: %r", engine[:SHORT], error)
            return error
        return None

    async def _sleep(self, engine: str) -> None:
        """Let the engine sleep once it is idle: sleeping under a request can hang or crash vLLM."""
        while not await self._is_idle(engine):
            await asyncio.sleep(IDLE_POLL_SECONDS)
        async with asyncio.timeout(SLEEP_LIMIT_SECONDS):
            await self._cluster.sleep(engine)

    async def _until_idle(self, engine: str) -> None:
        """Return once nothing is in flight, or the limit has passed: a broken engine may never be idle."""
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
            _log.info("engine %s did not answer whether it is idle: %s", engine[:SHORT], error)
        try:
            status = await self._cluster.observe(engine)
        except EngineUnavailable as error:
            _log.info("the cluster did not report the status of engine %s: %s", engine[:SHORT], error)
            return False
        return status is None or status.ready == 0

    # -- releases ---------------------------------------------------------------------------------

    async def _plan(self, number: int, state: ControlState) -> ev.Event:
        content = release_of(state, number).content
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
        release = release_of(state, number)
        begun = self._clock.now()
        try:
            warmed = await warm(
                *(release.content, self._cluster, partial(self._report_warmup, number), self._tag(number))
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
        release = release_of(state, number)
        probed = await probe(release.content, self._cluster, self._tag(number))
        reason = mismatch(release.answers, probed.answers)
        if reason is not None:
            return ev.ProbeFailed(at=self._clock.wall(), release=number, reason=reason, usage=probed.usage)
        return ev.ReleaseProbed(at=self._clock.wall(), release=number, usage=probed.usage)

    def _tag(self, release: int) -> HopTag:
        return HopTag("", release=release, purpose=Purpose.WARMUP, started=self._clock.wall())

    def _report_warmup(self, number: int, text: str) -> None:
        self._post(ev.Progressed(at=self._clock.wall(), subject=f"release {number}", text=text))
