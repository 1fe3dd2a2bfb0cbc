"""Gathering the facts of health, in bounded time: what does not answer by then counts as not known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from runtime.clock import Clock
from runtime.control.cluster import Cluster
from runtime.control.controller import Controller
from runtime.core.health.diagnosis import examine
from runtime.core.health.report import Facts, Health
from runtime.errors import StoreUnavailable

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 3.0
"""How long the cluster and the store are waited for: together, and less than a gateway waits for all."""

ASTRAY_SECONDS = 30.0
"""For how long a gateway is shown that does not follow because its store is not the manager's."""

_T = TypeVar("_T")


class Checkup:
    """Gathers the facts and lets them be judged. ``ask_store`` returns once the store has answered.

    A gateway that has not reported for ``silent_after`` seconds is a finding; the manager waits longer before
    it takes it as gone.
    """

    def __init__(
        self,
        controller: Controller,
        cluster: Cluster,
        clock: Clock,
        ask_store: Callable[[], Awaitable[None]],
        silent_after: float,
        *,
        store_of_one_node: bool = False,
    ) -> None:
        self._store_of_one_node = store_of_one_node
        self._controller = controller
        self._clock = clock
        self._silent_after = silent_after
        self._cluster = _Question(cluster.infrastructure)
        self._store = _Question(ask_store)

    async def health(self) -> Health:
        """Return how everything is now. It takes little more than ``PATIENCE_SECONDS`` at most."""
        cluster, store = await asyncio.gather(self._cluster.answer(), self._store.answer())
        state = self._controller.state
        return examine(
            Facts(
                state=state,
                activity=self._controller.hub.activity.of(state.gateways),
                now=self._clock.wall(),
                cluster=cluster,
                silent=self._controller.hub.silent(),
                silent_after=self._silent_after,
                store=store or "",
                loops=self._controller.loops.reports(),
                store_of_one_node=self._store_of_one_node,
                uncounted=self._controller.metrics.uncounted,
                astray=self._controller.hub.astray(ASTRAY_SECONDS),
            )
        )


class _Question(Generic[_T]):
    """Asks at most once at a time: each that hangs holds a thread, and health is asked again and again."""

    def __init__(self, ask: Callable[[], Awaitable[_T]]) -> None:
        self._ask = ask
        self._pending: asyncio.Task[_T | str] | None = None

    async def answer(self) -> _T | str:
        """Return the answer, or in words why there is none."""
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._result())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(self._pending)
        except TimeoutError:
            return f"no answer within {PATIENCE_SECONDS:g} s"

    async def _result(self) -> _T | str:
        try:
            return await self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            _log.info("a health check got no answer: %r", error)
            return _text(error)


def _text(error: Exception) -> str:
    text = str(error) or type(error).__name__
    detail = error.detail if isinstance(error, StoreUnavailable) else ""
    return f"{text} ({detail})" if detail else text
