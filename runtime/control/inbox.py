"""What waits for the controller's loop: events, ended effects, operators' commands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from runtime.core.swap import events as ev
from runtime.core.swap.commands import Command
from runtime.core.swap.effects import Effect
from runtime.core.swap.state import ControlState
from runtime.errors import EngineUnavailable


@dataclass(frozen=True)
class EffectEnded:
    """An effect's task is over: with an event, or with None if it was cancelled or broke."""

    effect: Effect
    event: ev.Event | None


@dataclass(frozen=True)
class PendingCommand:
    """An operator's command; ``done`` gets the state that it led to, or the reason why it was refused."""

    command: Command
    done: asyncio.Future[ControlState]

    def refuse(self, error: Exception) -> None:
        """Answer with ``error``, unless there is an answer already."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True)
class SettleAgain:
    """The state could not be settled a while ago."""


Item = ev.Event | EffectEnded | PendingCommand | SettleAgain


def is_report(item: Item) -> bool:
    """Say whether an item only reports something, so that it may be settled together with the next one.

    Commands and the results of effects depend on what has been decided by then.
    """
    if isinstance(item, EffectEnded):
        return item.event is None
    return isinstance(item, ev.GatewayReported | ev.Progressed)


class Inbox:
    """A queue of items. Every command gets an answer, also when the inbox closes."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._following: Item | None = None
        """What is taken next, and is not in the queue any more."""
        self._closed = False
        self.settles_again = False
        """Whether settling broke, and is tried again by and by."""

    def put(self, item: Item) -> None:
        """Put an item behind the others."""
        self._items.put_nowait(item)

    async def ask(self, command: Command) -> ControlState:
        """Put a command behind the others, and return the state that it led to.

        Raises the error that it was refused with; EngineUnavailable: no commands are taken any more.
        """
        if self._closed:
            raise EngineUnavailable("this manager has ended; another one is coming")
        pending = PendingCommand(command, asyncio.get_running_loop().create_future())
        self.put(pending)
        return await pending.done

    def settle_after(self, seconds: float) -> None:
        """Have the state settled again after a pause, once."""
        if not self.settles_again:
            self.settles_again = True
            asyncio.get_running_loop().call_later(seconds, self._settle_again)

    def _settle_again(self) -> None:
        self.settles_again = False
        self.put(SettleAgain())

    def following(self) -> Item | None:
        """Return what ``take`` returns next, None if nothing has come yet. Call it once before each."""
        self._following = None if self._items.empty() else self._items.get_nowait()
        return self._following

    async def take(self) -> Item:
        """Return the next item, as soon as there is one."""
        return await self._items.get() if self._following is None else self._following

    def close(self) -> None:
        """Take no more commands."""
        self._closed = True

    def turn_away(self) -> None:
        """Refuse the commands that wait: no commands are taken any more."""
        waiting = [self._following]
        while not self._items.empty():
            waiting.append(self._items.get_nowait())
        for item in waiting:
            if isinstance(item, PendingCommand):
                item.refuse(EngineUnavailable("this manager ends; another one is coming"))
