"""Changes to a state that several events make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from runtime.core.swap import events as ev
from runtime.core.swap.release import Move, after
from runtime.core.swap.state import ControlState, Release
from runtime.errors import IllegalTransition

Folds = Mapping[type[ev.Event], Callable[[ControlState, Any], ControlState]]
"""What folds each kind of event of a group."""


def release_of(state: ControlState, number: int) -> Release:
    """Return the release. Raises IllegalTransition: there is none of this number."""
    try:
        return state.releases[number]
    except KeyError:
        raise IllegalTransition(f"there is no release {number}") from None


def put(state: ControlState, release: Release) -> ControlState:
    """Have the release be so."""
    return replace(state, releases={**state.releases, release.number: release})


def move(state: ControlState, number: int, move: Move, at: float) -> ControlState:
    """Move the release as the table has it. Raises IllegalTransition: the table has no such move."""
    release = release_of(state, number)
    target = after(release.state, move)
    return put(state, replace(release, state=target, entered={**release.entered, target: at}))


def remember(state: ControlState, what: str, seconds: float) -> ControlState:
    """Remember how long it took, for those who will ask how long it takes."""
    return replace(state, history={**state.history, what: seconds}) if seconds else state


def over(state: ControlState, *subjects: str) -> ControlState:
    """Forget how far these were."""
    return replace(state, progress={what: p for what, p in state.progress.items() if what not in subjects})
