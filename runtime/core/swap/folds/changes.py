"""Changes to a state that several events make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from runtime.core.swap import events as ev
from runtime.core.swap.release import Move, after
from runtime.core.swap.state import ControlState, Numbered, release_of

Folds = Mapping[type[ev.Event], Callable[[ControlState, Any], ControlState]]
"""What folds each kind of event of a group."""


def put(state: ControlState, release: Numbered) -> ControlState:
    """Have what has this number be so."""
    return replace(state, releases={**state.releases, release.number: release})


def move(state: ControlState, number: int, move: Move, at: float) -> ControlState:
    """Move what has this number as the table has it. Raises IllegalTransition: the table has no such move."""
    release = state.releases.get(number) or release_of(state, number)
    target = after(release.state, move)
    return put(state, replace(release, state=target, entered={**release.entered, target: at}))


def remember(state: ControlState, what: str, seconds: float) -> ControlState:
    """Remember how long it took, for those who will ask how long it takes."""
    return replace(state, history={**state.history, what: seconds}) if seconds else state


def over(state: ControlState, *subjects: str) -> ControlState:
    """Forget how far these were."""
    return replace(state, progress={what: p for what, p in state.progress.items() if what not in subjects})
