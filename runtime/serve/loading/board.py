"""Where replicas that come up report their stage, and where the manager reads it.

The board is an actor of the manager's that replicas find by its name. So a replica or a manager that restarts
finds it again and needs no stored handle. Progress is only for people: nothing here lets a load fail or wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError

from runtime.core.swap.installation import installation_in_name
from runtime.core.swap.phase import EnginePhase, Stage

_log = logging.getLogger(__name__)

_NAMESPACE = "interlock"

_ANSWER_SECONDS = 2.0
"""How long the board is waited for."""

_POLL_SECONDS = 0.25
"""How often a replica checks its stage."""

_AGAIN_SECONDS = 5.0
"""How often it sends the same stage again: a restarted manager has a new board."""


def _name(installation: str) -> str:
    """Return the name of an installation's board: each installation of the cluster has its own."""
    return f"load-board-{installation}"


class _Board:
    """Keeps the last stage of each replica, by the name of its application."""

    def __init__(self) -> None:
        self._stages: dict[str, dict[str, Stage]] = {}

    def note(self, app: str, replica: str, stage: Stage) -> None:
        """Take a replica's stage; it is now the newest."""
        stages = self._stages.setdefault(app, {})
        stages.pop(replica, None)
        stages[replica] = stage

    def read(self, app: str) -> list[Stage]:
        """Return the last stages of an application's replicas, the newest last."""
        return list(self._stages.get(app, {}).values())

    def forget(self, app: str) -> None:
        """Forget an application that is gone, or about to be made anew."""
        self._stages.pop(app, None)


class LoadBoard:
    """The manager's end. It reads the board in the background, so that no caller waits for it."""

    def __init__(self, installation: str) -> None:
        self._name = _name(installation)
        self._board: ray.actor.ActorHandle | None = None
        self._opening = asyncio.Lock()
        self._stages: dict[str, list[Stage]] = {}
        self._pending: dict[str, asyncio.Task[None]] = {}

    def stages(self, app: str) -> list[Stage]:
        """Return the last known stages of the application's replicas, the newest last."""
        if app not in self._pending:
            self._start(app, self._read(app))
        return self._stages.get(app, [])

    def forget(self, app: str) -> None:
        """Forget the stages of an application that is made anew, or is gone."""
        self._stages.pop(app, None)
        if app in self._pending:
            self._pending[app].cancel()
        self._start(app, self._ask("forget", app))

    def _start(self, app: str, call: Coroutine[Any, Any, Any]) -> None:
        task = self._pending[app] = asyncio.create_task(call)
        task.add_done_callback(
            lambda done: self._pending.pop(app) if self._pending.get(app) is done else None
        )

    async def _read(self, app: str) -> None:
        stages = await self._ask("read", app)
        if stages is not None:
            self._stages[app] = stages

    async def _ask(self, method: str, app: str) -> Any:
        board = self._board
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                async with self._opening:
                    board = self._board = self._board or await asyncio.to_thread(_open, self._name)
                return await getattr(board, method).remote(app)
        except RayActorError as error:
            # Give the handle up only now: the board ends with the handle that it was made with.
            self._board = None if self._board is board else self._board
            _log.info("the board of loads is gone and is made anew: %s", type(error).__name__)
        except (RayError, ValueError, TimeoutError) as error:
            _log.info("the board of loads does not answer: %r", error)
        return None


def _open(name: str) -> ray.actor.ActorHandle:
    board = ray.remote(_Board)
    return board.options(name=name, namespace=_NAMESPACE, get_if_exists=True, num_cpus=0).remote()


@contextmanager
def reporting(stage: Callable[[], Stage]) -> Iterator[None]:
    """Report this replica's stage to the board while the block runs, and then that it is up."""
    context = serve.get_replica_context()
    reporter = _Reporter(context.app_name, context.replica_tag, stage)
    reporter.start()
    try:
        yield
        reporter.up = True
    finally:
        reporter.over.set()


class _Reporter(threading.Thread):
    """A thread, because vLLM's constructor blocks the event loop until its engine has come up."""

    def __init__(self, app: str, replica: str, stage: Callable[[], Stage]) -> None:
        super().__init__(name="load-board", daemon=True)
        self._app, self._replica, self._stage = app, replica, stage
        self._board = _name(installation_in_name(app))
        self.over = threading.Event()
        self.up = False

    def run(self) -> None:
        last: Stage | None = None
        at = 0.0
        while not self.over.is_set():
            stage = self._stage()
            if stage != last or time.monotonic() - at > _AGAIN_SECONDS:
                last, at = stage, time.monotonic()
                self._send(stage)
            self.over.wait(_POLL_SECONDS)
        if self.up:
            self._send(Stage(EnginePhase.CHECKING))

    def _send(self, stage: Stage) -> None:
        try:
            board = ray.get_actor(self._board, namespace=_NAMESPACE)
            ray.get(board.note.remote(self._app, self._replica, stage), timeout=_ANSWER_SECONDS)
        except (RayError, ValueError) as error:
            _log.debug("could not report that this replica is %s: %s", stage, error)
