"""Where replicas that come up say how far they are, and where the manager reads it.

The board is an actor of the manager's that replicas find by its name. Whoever of the two is started
again finds the other one so, and needs no handle that was kept somewhere. What people see is not worth
a load: nothing here lets one fail or wait.
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
"""How often a replica looks how far it is."""

_AGAIN_SECONDS = 5.0
"""How often it says the same again: a manager that was started again has a new board."""


def _name(installation: str) -> str:
    """Return under which name an installation's board is found: others of the cluster have theirs."""
    return f"load-board-{installation}"


class _Board:
    """Keeps what each replica said last, by the name of its application."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, Stage]] = {}

    def note(self, app: str, replica: str, stage: Stage) -> None:
        """Take a replica's word; it is now the newest."""
        heard = self._heard.setdefault(app, {})
        heard.pop(replica, None)
        heard[replica] = stage

    def read(self, app: str) -> list[Stage]:
        """Return what the replicas of an application said last, the newest last."""
        return list(self._heard.get(app, {}).values())

    def forget(self, app: str) -> None:
        """Forget an application that is gone, or about to be made anew."""
        self._heard.pop(app, None)


class LoadBoard:
    """The manager's end. It asks the board beside what it is asked itself, so that nobody waits for it."""

    def __init__(self, installation: str) -> None:
        self._name = _name(installation)
        self._board: ray.actor.ActorHandle | None = None
        self._opening = asyncio.Lock()
        self._heard: dict[str, list[Stage]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def heard(self, app: str) -> list[Stage]:
        """Return what the application's replicas were last heard to say, the newest last."""
        if app not in self._asking:
            self._start(app, self._read(app))
        return self._heard.get(app, [])

    def forget(self, app: str) -> None:
        """Forget what was said of an application that is made anew, or is gone."""
        self._heard.pop(app, None)
        if app in self._asking:
            self._asking[app].cancel()
        self._start(app, self._ask("forget", app))

    def _start(self, app: str, asking: Coroutine[Any, Any, Any]) -> None:
        task = self._asking[app] = asyncio.create_task(asking)
        task.add_done_callback(lambda done: self._asking.pop(app) if self._asking.get(app) is done else None)

    async def _read(self, app: str) -> None:
        heard = await self._ask("read", app)
        if heard is not None:
            self._heard[app] = heard

    async def _ask(self, method: str, app: str) -> Any:
        board = self._board
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                async with self._opening:
                    board = self._board = self._board or await asyncio.to_thread(_open, self._name)
                return await getattr(board, method).remote(app)
        except RayActorError as error:
            # Only now is the handle given up, for the board ends with the handle that it was made with.
            self._board = None if self._board is board else self._board
            _log.info("the board of loads is gone and is made anew: %s", type(error).__name__)
        except (RayError, ValueError, TimeoutError) as error:
            _log.info("the board of loads does not answer: %r", error)
        return None


def _open(name: str) -> ray.actor.ActorHandle:
    board = ray.remote(_Board)
    return board.options(name=name, namespace=_NAMESPACE, get_if_exists=True, num_cpus=0).remote()


@contextmanager
def telling(stage: Callable[[], Stage]) -> Iterator[None]:
    """Tell the board how far this replica is while the block runs, and then that it is up."""
    context = serve.get_replica_context()
    teller = _Teller(context.app_name, context.replica_tag, stage)
    teller.start()
    try:
        yield
        teller.up = True
    finally:
        teller.over.set()


class _Teller(threading.Thread):
    """A thread, for vLLM's constructor keeps the event loop until its engine has come up."""

    def __init__(self, app: str, replica: str, stage: Callable[[], Stage]) -> None:
        super().__init__(name="load-board", daemon=True)
        self._app, self._replica, self._stage = app, replica, stage
        self._board = _name(installation_in_name(app))
        self.over = threading.Event()
        self.up = False

    def run(self) -> None:
        told: Stage | None = None
        at = 0.0
        while not self.over.is_set():
            stage = self._stage()
            if stage != told or time.monotonic() - at > _AGAIN_SECONDS:
                told, at = stage, time.monotonic()
                self._tell(stage)
            self.over.wait(_POLL_SECONDS)
        if self.up:
            self._tell(Stage(EnginePhase.CHECKING))

    def _tell(self, stage: Stage) -> None:
        try:
            board = ray.get_actor(self._board, namespace=_NAMESPACE)
            ray.get(board.note.remote(self._app, self._replica, stage), timeout=_ANSWER_SECONDS)
        except (RayError, ValueError) as error:
            _log.debug("nobody hears that this replica is %s: %s", stage, error)
