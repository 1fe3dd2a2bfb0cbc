"""Operators' commands on releases, and whether a command fits the state.

A command names the *edition* of the releases that it was based on. Every change of a release's state,
and every newly wanted set, makes a new edition, so of two operators who saw the same one only the first
wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from runtime.core.swap import events as ev
from runtime.core.swap.release import CANDIDATE, OVER, WARM, ReleaseState
from runtime.core.swap.state import ControlState, Numbered, Release
from runtime.errors import CommandRefused, EtagMissing, StaleEtag, UnknownRelease, WrongState


class Action(StrEnum):
    """The commands."""

    PROMOTE = "promote"  # send new requests to a release that is standby, or draining; or keep the live one
    ABORT = "abort"  # give up a candidate
    ROLLBACK = "rollback"  # promote a release that has been live before
    RETRY = "retry"  # bring up again what has failed, or was given up, as a new release


ANY_EDITION = -1
"""The operator accepts any edition (``If-Match: *``)."""

MOST_RELEASES = 2**31 - 1
"""The greatest number that a release can have: a column of the store holds no greater one."""

_MAX_ACTOR = 256


@dataclass(frozen=True)
class Command:
    """One operator's command. ``release`` is None where the state determines which one is meant."""

    action: Action
    actor: str
    """Who gave it, for the audit log."""
    edition: int | None
    release: int | None = None


def check(state: ControlState, command: Command, at: float) -> ev.Commanded:
    """Return the event that carries ``command`` out.

    Raises:
        EtagMissing: it names no edition.
        StaleEtag: the releases have changed since.
        UnknownRelease: there is no such release, or none that could be meant.
        WrongState: the release cannot do this from its state.
        CommandRefused: the audit log cannot keep its actor's name.

    """
    _check_actor(command)
    _check_edition(state, command)
    release = _CHECKS[command.action](state, command)
    live = state.live
    return ev.Commanded(
        at=at,
        action=command.action.value,
        actor=command.actor,
        release=release.number,
        live=live.number if live else None,
    )


def audit_name(actor: str) -> str:
    """Return an actor's name as the audit log can keep it, whatever it is."""
    return "".join(c if c.isprintable() else "?" for c in actor[:_MAX_ACTOR])


def _check_actor(command: Command) -> None:
    if command.actor != audit_name(command.actor):
        raise CommandRefused(f"who asks must be at most {_MAX_ACTOR} printable characters")


def _check_edition(state: ControlState, command: Command) -> None:
    if command.edition is None:
        raise EtagMissing("the command needs If-Match with the etag of the releases, or *", _edition(state))
    if command.edition not in (ANY_EDITION, state.edition):
        raise StaleEtag(
            f"the releases have changed since edition {command.edition}: look again, then decide",
            _edition(state),
        )


def _edition(state: ControlState) -> str:
    live = state.live
    return f"edition {state.edition}, live is {f'release {live.number}' if live else 'none'}"


def _named(state: ControlState, number: int) -> Numbered:
    release = state.releases.get(number)
    if release is None:
        known = ", ".join(map(str, state.releases)) or "none"
        raise UnknownRelease(f"there is no release {number}; there is: {known}", _edition(state))
    return release


def _coming(state: ControlState) -> list[Release]:
    """Return the releases that have never been live and may still become it."""
    return [
        r
        for r in state.unretired
        if r.state in CANDIDATE or (r.state is ReleaseState.STANDBY and not r.was_live)
    ]


def _check_promote(state: ControlState, command: Command) -> Numbered:
    if command.release is not None:
        release = _named(state, command.release)
    else:
        coming = state.coming
        waiting = [r for r in _coming(state) if r.state is ReleaseState.STANDBY]
        if coming is not None and coming.held and coming.state is ReleaseState.STANDBY:
            waiting.append(coming)
        if not waiting:
            raise UnknownRelease("no release waits to be promoted; name one", _edition(state))
        release = waiting[-1]
    called_off = release.state is ReleaseState.LIVE and not state.is_wanted(release)
    if release.state not in WARM and not called_off:
        raise WrongState(
            f"release {release.number} is {release.state}; {_HINTS[release.state]}", release.state
        )
    return release


def _check_abort(state: ControlState, command: Command) -> Numbered:
    coming = _coming(state)
    if command.release is None and not coming:
        raise UnknownRelease("no release is being brought up", _edition(state))
    release = _named(state, command.release) if command.release is not None else coming[-1]
    if release not in coming:
        raise WrongState(
            f"release {release.number} is {release.state}: only one that was never live can be aborted",
            release.state,
        )
    return release


def _check_rollback(state: ControlState, command: Command) -> Numbered:
    if command.release is not None:
        release = _named(state, command.release)
    else:
        past = [r for r in state.holding if r.was_live and r.state in WARM]
        if not past:
            raise UnknownRelease(_no_way_back(state), _edition(state))
        release = max(past, key=lambda r: r.demoted)
    if release.state not in WARM or not release.was_live:
        hint = "it has not been live yet: promote it" if release.state in WARM else _HINTS[release.state]
        raise WrongState(f"release {release.number} is {release.state}; {hint}", release.state)
    return release


def _no_way_back(state: ControlState) -> str:
    """Return why there is no release to roll back to."""
    live = state.live
    if live is None:
        return "no release is live yet, so there is none to go back to"
    if any(r.was_live for r in state.taken if r is not live):
        return "no earlier release is resident; its rollback window is over"
    return f"release {live.number} is the first that went live: there is none to go back to"


def _check_retry(state: ControlState, command: Command) -> Numbered:
    release = _named(state, command.release) if command.release is not None else state.came_to
    if release is None:
        raise UnknownRelease("no model set is wanted: deploy one", _edition(state))
    if release.reason is None or release.state not in OVER:
        raise WrongState(
            f"release {release.number} is {release.state}: only one that has failed can be tried again",
            release.state,
        )
    if release.content is None:
        raise WrongState(
            f"release {release.number} could not be read: mend its model set, then deploy it "
            "(the same path again: with another text in `change` of user_config)",
            release.state,
        )
    return release


_HINTS = {
    ReleaseState.PENDING: "it is not ready yet: wait for standby",
    ReleaseState.LOADING: "it is not ready yet: wait for standby",
    ReleaseState.WARMING: "it is not ready yet: wait for standby",
    ReleaseState.VERIFYING: "it is not ready yet: wait for standby",
    ReleaseState.LIVE: "it takes the requests already",
    ReleaseState.FAILED: "it cannot become live; see its reason",
    ReleaseState.UNLOADING: "it is no longer resident: deploy its model set again, with another `change`",
    ReleaseState.RETIRED: "it is no longer resident: deploy its model set again, with another `change`",
}

_CHECKS: dict[Action, Callable[[ControlState, Command], Numbered]] = {
    Action.PROMOTE: _check_promote,
    Action.ABORT: _check_abort,
    Action.ROLLBACK: _check_rollback,
    Action.RETRY: _check_retry,
}
