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
    """Put ``release`` under its number, in the place of what was there."""
    return replace(state, releases={**state.releases, release.number: release})


def move(state: ControlState, number: int, move: Move, at: float) -> ControlState:
    """Move a release or refused set. Raises IllegalTransition: the transition table has no such move."""
    release = state.releases.get(number) or release_of(state, number)
    target = after(release.state, move)
    return put(state, replace(release, state=target, entered={**release.entered, target: at}))


def remember(state: ControlState, task: str, seconds: float) -> ControlState:
    """Remember how many seconds ``task`` took, to estimate how long it will take."""
    return replace(state, history={**state.history, task: seconds}) if seconds else state


def over(state: ControlState, *subjects: str) -> ControlState:
    """Forget the progress of ``subjects``, which have ended."""
    return replace(
        state, progress={subject: p for subject, p in state.progress.items() if subject not in subjects}
    )
