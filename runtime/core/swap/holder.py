"""Who works on a store: one manager at a time, which renews its hold by heartbeats."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict

BEAT_SECONDS = 2.0
"""How often the manager that holds a store sends a heartbeat."""

PATIENCE_SECONDS = 10.0
"""How long another manager watches it before it takes over from a silent one, or gives way to a live one.

So long, too, an application that was renamed has to end before the new one is refused.
"""


class Holder(BaseModel):
    """A manager's process, as others that open the same store see it."""

    model_config = ConfigDict(frozen=True)

    cluster: str
    """Id of its Ray cluster."""
    application: str
    """Name of its Serve application."""
    host: str
    """Name of its machine, for people."""
    machine: str
    """The boot and the process namespace in which ``pid`` means something."""
    pid: int
    started: float
    """When the process began, in seconds since the machine's start: process ids are used again."""

    def replaces(self, other: Holder) -> bool:
        """Say whether Serve has made this one in the place of the other, which is gone or going."""
        return (self.cluster, self.application) == (other.cluster, other.application)

    def __str__(self) -> str:
        """Return it as text for people."""
        return f"the manager of application {self.application!r} (process {self.pid} on {self.host})"


class HoldDecision(Enum):
    """What a manager that wants a store does about the one that holds it."""

    TAKE = "take"
    WAIT = "wait"
    REFUSE = "refuse"


def decide(
    own: Holder, holder: Holder | None, *, ended: bool, beats: bool, deployed: bool, watched: float
) -> HoldDecision:
    """Return what ``own`` does about ``holder``, which it has ``watched`` for so many seconds.

    ``ended`` says that its process is known to be over, ``beats`` that it has sent a heartbeat since,
    ``deployed`` that its application is in this Ray cluster: then it comes back, or works on another store,
    of which this one is a copy, and two would take the same engines for theirs.
    """
    if holder is None or own.replaces(holder) or (ended and not deployed):
        return HoldDecision.TAKE
    if watched < PATIENCE_SECONDS:
        return HoldDecision.WAIT
    return HoldDecision.REFUSE if beats or deployed else HoldDecision.TAKE


_OF_A_COPY = (
    "if this store is a copy of its store, give the copy an id of its own first "
    "(update installation set id = '8 hexadecimal digits'; update holder set holder = '')"
)


def refusal(own: Holder, holder: Holder, *, beats: bool) -> str:
    """Return why ``own`` does not start."""
    if not beats:
        last = f"the store was last in use by {holder}, whose application is still in this Ray cluster"
        return f"{last}: remove that, or, {_OF_A_COPY}"
    cluster = "this Ray cluster" if own.cluster == holder.cluster else "another Ray cluster"
    return (
        f"the store is in use by {holder} of {cluster}, and one manager at a time may work on it: "
        f"give {own.application!r} a store of its own (store_url in its args, or INTERLOCK_STORE_URL), "
        "or remove the other"
    )
