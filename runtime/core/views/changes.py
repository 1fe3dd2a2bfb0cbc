"""What happens to releases and engines, one event for each: what ``GET /admin/v1/events`` sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from runtime.core.swap.state import ControlState
from runtime.core.views.forms import Form


class ReleaseChange(Form):
    """A release has come, or is in another state. ``at`` is in seconds since the Unix epoch."""

    kind: Literal["release"]
    number: int
    name: str | None
    """What the model set is called; null if it could not be read."""
    from_state: str | None
    to_state: str
    reason: str | None
    at: float


class EngineChange(Form):
    """An engine has come, is in another state or phase, or has gone: then ``to_state`` is null."""

    kind: Literal["engine"]
    digest: str
    name: str
    """What model sets call it; empty if none has it."""
    from_state: str | None
    to_state: str | None
    phase: str | None
    """How far its load is."""
    reason: str | None
    at: float


Change = Annotated[ReleaseChange | EngineChange, Field(discriminator="kind")]

MissedBy = Literal["", "read_too_slowly", "manager_gone"]


class NumberedChange(Form):
    """A change and its id, which is greater than those of all before it."""

    id: int
    change: Change


class ChangeBatch(Form):
    """The changes after an id, the oldest first. ``last`` is the id to ask from next.

    ``missed`` says why changes in between are not known: then there are none in it.
    """

    happened: list[NumberedChange]
    last: int
    missed: MissedBy = ""


def changes(before: ControlState, after: ControlState, at: float) -> Iterator[ReleaseChange | EngineChange]:
    """Yield what has become of releases and of engines between two states."""
    yield from _of_releases(before, after)
    yield from _of_engines(before, after, at)


def _of_releases(before: ControlState, after: ControlState) -> Iterator[ReleaseChange]:
    if after.releases is before.releases:
        return
    for number, release in after.releases.items():
        old = before.releases.get(number)
        if old is None or old.state is not release.state:
            yield ReleaseChange(
                kind="release",
                number=number,
                name=release.content.model_set.name if release.content else None,
                from_state=old.state if old else None,
                to_state=release.state,
                reason=release.reason,
                at=release.entered[release.state],
            )


def _of_engines(before: ControlState, after: ControlState, at: float) -> Iterator[EngineChange]:
    if after.engines is before.engines and after.progress is before.progress:
        return
    for digest in {**before.engines, **after.engines}:
        old, new = before.engines.get(digest), after.engines.get(digest)
        was, phase = _phase(before, digest), _phase(after, digest)
        moved = (old and old.state) is not (new and new.state)
        if moved or (phase is not None and phase != was):
            yield EngineChange(
                kind="engine",
                digest=digest,
                name=after.sets_call(digest) or before.sets_call(digest),
                from_state=old.state if old else None,
                to_state=new.state if new else None,
                phase=phase,
                reason=new.reason if new else None,
                at=at,
            )


def _phase(state: ControlState, digest: str) -> str | None:
    progress = state.progress.get(f"engine {digest}")
    return progress.stage.phase if progress and progress.stage else None
