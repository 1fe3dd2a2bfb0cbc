"""Who asked for what, when, and what it was before: one entry for each deploy, command and change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from runtime.core.budgets.budget import Cap
from runtime.core.swap import events as ev
from runtime.core.swap.commands import MOST_RELEASES, Command, audit_name
from runtime.core.swap.state import ControlState
from runtime.errors import CommandRefused

MAX_AUDIT = 1000
"""The most entries of one answer."""

CONFIG = "serve config"
"""The actor of a change that came with ``user_config``."""


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit log. ``at`` is wall time in seconds."""

    at: float
    actor: str
    action: str
    from_release: int | None
    to_release: int | None
    outcome: str
    """``accepted``, or ``refused: `` and the error's code."""
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the entry as the admin API shows it."""
        return asdict(self)


def entry_of(event: ev.Event, before: ControlState, after: ControlState) -> AuditEntry | None:
    """Return what the audit log says of ``event``; None if nobody asked for it, or nothing changes."""
    live = before.live.number if before.live else None
    match event:
        case ev.Commanded():
            return AuditEntry(event.at, event.actor, event.action, live, event.release, "accepted")
        case ev.Wanted() | ev.Refused() if after.wanted is not None and after.wanted != before.wanted:
            detail = f"{event.source}: {event.reason}" if isinstance(event, ev.Refused) else event.source
            outcome = "refused: invalid_model_set" if isinstance(event, ev.Refused) else "accepted"
            return AuditEntry(event.at, CONFIG, "want", live, after.wanted.release, outcome, detail)
    return None


def cap_changed(at: float, actor: str, before: Cap | None, after: Cap | None) -> AuditEntry | None:
    """Return what the audit log says of a cap that is set, replaced or removed; None if it stays as it is."""
    if before is not None and after is not None and replace(after, id=before.id) == before:
        return None
    action = "set_budget" if after is not None else "remove_budget"
    was = f"it was {before}" if after is not None else str(before)
    details = [str(after)] if after is not None else []
    details += [was] if before is not None else []
    return AuditEntry(at, actor, action, None, None, "accepted", "; ".join(details))


def refused(command: Command, refusal: CommandRefused, state: ControlState, at: float) -> AuditEntry:
    """Return what the audit log says of a command that did not fit, in what its columns can hold."""
    number = command.release
    return AuditEntry(
        at=at,
        actor=audit_name(command.actor),
        action=command.action.value,
        from_release=state.live.number if state.live else None,
        to_release=number if number is not None and 0 <= number <= MOST_RELEASES else None,
        outcome=f"refused: {refusal.code}",
        detail=str(refusal),
    )
