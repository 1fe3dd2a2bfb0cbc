"""The effects that run: started when they are due, cancelled when they are not any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

from runtime.clock import Clock
from runtime.control.effects import Effects
from runtime.control.inbox import EffectEnded, Inbox
from runtime.core.swap import events as ev
from runtime.core.swap.effects import Effect, Subject
from runtime.core.swap.state import ControlState
from runtime.loops import LoopWatch

_log = logging.getLogger(__name__)


class RunningEffects:
    """Keeps a task for each due effect; the end of one goes into the inbox. ``post`` is for progress only."""

    def __init__(
        self,
        effects: Effects,
        inbox: Inbox,
        state: Callable[[], ControlState],
        post: Callable[[ev.Event], None],
        loops: LoopWatch,
        clock: Clock,
    ) -> None:
        self.effects = effects
        self._inbox = inbox
        self._state = state
        self._post = post
        self._loops = loops
        self._clock = clock
        self._due: frozenset[Effect] = frozenset()
        """What was due when the state was last settled."""
        self._started: set[Effect] = set()
        """Effects that run and are not being cancelled."""
        self._tasks: dict[Subject, asyncio.Task[ev.Event | None]] = {}
        """Tasks by subject, with those that are being cancelled and have not ended."""

    def reconcile(self, due: frozenset[Effect]) -> None:
        """Cancel what is not due any more, and start what is and does not run."""
        self._due = due
        for effect in self._started - due:
            self._tasks[effect.subject].cancel()
            self._started.discard(effect)
        for effect in due - self._started:
            # An effect that was cancelled keeps its subject until it has really ended: a load that
            # is still asking for an application must not overlap with the unload that follows.
            if effect.subject not in self._tasks:
                self._start(effect, self._run(effect))

    def retire(self, ended: EffectEnded) -> ev.Event | None:
        """Take an ended effect off the list. What it found out counts only if it was still due."""
        self._tasks.pop(ended.effect.subject)
        self._started.discard(ended.effect)
        return ended.event if ended.effect in self._due else None

    def rest(self, effect: Effect, seconds: float) -> None:
        """Pause for a while in the place of an effect that would else run again at once."""
        self._start(effect, asyncio.sleep(seconds, None))

    async def stop(self) -> None:
        """Cancel all, and return once they have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, effect: Effect, run: Coroutine[None, None, ev.Event | None]) -> None:
        task = asyncio.create_task(run)
        task.add_done_callback(partial(self._ended, effect))
        self._tasks[effect.subject] = task
        self._started.add(effect)

    def _ended(self, effect: Effect, task: asyncio.Task[ev.Event | None]) -> None:
        """Put the end into the inbox: also of a task that was cancelled before its first step."""
        self._inbox.put(EffectEnded(effect, None if task.cancelled() else task.result()))

    async def _run(self, effect: Effect) -> ev.Event | None:
        name = type(effect).__name__
        try:
            event = await self.effects.run(effect, self._state())
        except Exception as error:  # noqa: BLE001 - whatever an effect breaks by, the loop goes on and tries again
            _log.error("effect %s broke", effect)
            pause = self._loops.broke(name, error)
            text = f"is tried again: {type(error).__name__}: {error}"
            self._post(ev.Progressed(at=self._clock.wall(), subject=effect.shown, text=text))
            await asyncio.sleep(pause)
            return None
        self._loops.recovered(name)
        return event
