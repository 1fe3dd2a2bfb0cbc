"""Bringing an engine up: create it, watch it, report progress, and give up when its time is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from runtime.clock import Clock
from runtime.control.cluster import AppStatus, Cluster
from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev
from runtime.core.swap.effects import LoadEngine
from runtime.core.swap.state import ControlState, EngineRecord
from runtime.core.views.progress import elapsed_text, expected_load
from runtime.errors import EngineUnavailable, InterlockError

_log = logging.getLogger(__name__)

POLL_SECONDS, POLL_SHARE, POLL_SECONDS_AT_MOST = 0.25, 0.02, 1.0
"""How often the cluster is asked about an application: the longer it takes, the less often. Serve has nothing
to wait on, and each answer takes of the cores that the load wants."""

RELOAD_SECONDS = 10.0
"""Pause before an engine of a release that has served is loaded again after it failed to load."""

CREATE_TRIES = 5
"""How often an application is asked for while the cluster does not answer."""

CREATE_RETRY_SECONDS = 2.0
"""Pause before it is asked for again; together as long as Serve's controller takes to come back."""


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
    """Its last status."""


def _so_far(status: AppStatus | None) -> str:
    """Return how far a load had come that has taken too long."""
    if status is None:
        return ""
    rest = status.waits or (f"the others: {status.stage}" if status.stage else "")
    return f": {status.ready} of {status.target} replicas run" + (f", {rest}" if rest else "")


class Loads:
    """Loads engines. ``post`` is for progress only."""

    def __init__(self, cluster: Cluster, clock: Clock, post: Callable[[ev.Event], None]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._post = post

    async def run(self, effect: LoadEngine, state: ControlState) -> ev.Event:
        """Load the engine; return that every replica runs, or why not."""
        engine = effect.engine
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
                self._report(load, f"is asked for again: {error}")
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
                self._report(load, f"{text}; {status.waits}" if status.waits else text, status)
                load.shown = status
            if status is not None and status.running:
                seconds = self._clock.now() - load.begun
                return ev.EngineLoaded(at=self._clock.wall(), engine=load.engine, seconds=seconds)
            await asyncio.sleep(poll_seconds(self._clock.now() - load.begun))

    def _report(self, load: _Load, text: str, status: AppStatus | None = None) -> None:
        """Report the progress of a load. Call this for a change only: it is logged."""
        times = elapsed_text(self._clock.now() - load.begun, load.expected)
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
            _log.info("the cluster did not report the status of engine %s: %s", engine[:SHORT], error)
            return None
