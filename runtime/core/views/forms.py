"""The forms in which the control state is read: one schema for the API, the command line and tests.

Names, order and values of the members are part of the admin API. A reader of another version's answer keeps
the members that it does not know, and has defaults for those that are missing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["live", "failed", "in progress"]


class Form(BaseModel):
    """Base of all forms: frozen, and open for the members of another version."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def as_json(self) -> dict[str, Any]:
        """Return the members that were set, as plain JSON in their order."""
        return self.model_dump(mode="json", exclude_unset=True)


class Tokens(Form):
    """What was read and generated."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class EngineUse(Form):
    """An engine as a release has it."""

    digest: str
    reused: bool = False


class PrefixCache(Form):
    """How many first requests are counted, and which share of their prompts came from the cache."""

    requests: int = 0
    hit_rate: float | None = None


class Plan(Form):
    """What a swap to a model set would load, reuse and need."""

    fits: bool


class WantedEntry(Form):
    """The last wanted change, and what became of it."""

    change: str = ""
    release: int
    source: str
    outcome: Outcome | Literal["retired"]
    reason: str | None = None


class ReleaseEntry(Form):
    """A release, and what it waits for."""

    number: int
    source: str
    name: str | None = None
    model_set: str | None = None
    state: str
    outcome: Outcome
    reason: str | None
    progress: str | None = None
    waits_for: str = ""
    since: float | None = None
    expected_in_state_s: float | None = None
    held: bool = False
    was_live: bool = False
    warm: bool = False
    leases: int = 0
    oldest_lease_s: float | None = None
    engines: dict[str, EngineUse] = {}
    warmup: Tokens = Tokens()
    entered: dict[str, float] = {}
    acknowledged: float | None = None
    first_acknowledged: float | None = None
    plan: Plan | None = None
    expected_s: dict[str, float] = {}
    prefix_cache: PrefixCache = PrefixCache()
    faults: list[str] = []


class EngineEntry(Form):
    """An engine, and how far it is."""

    digest: str
    kind: str | None = None
    state: str
    phase: str | None = None
    progress: str | None = None
    since: float | None = None
    expected_s: float | None = None
    reason: str | None = None
    loaded_by: int | None = None
    releases: list[int] = []


class GatewayEntry(Form):
    """A gateway by its last report."""

    id: str
    table: int = 0
    reports: int = 0
    leases: int = 0
    lagging: bool = False
    cutover_ms: float = 0.0
    tasks: int = 0
    clients: int = 0


class ManagerEntry(Form):
    """What the manager's own process holds."""

    tasks: int = 0
    clients: int = 0


class ReleaseList(Form):
    """The releases, by an edition that the etag names."""

    edition: int
    live: int | None
    wanted: WantedEntry | None
    releases: list[ReleaseEntry]


class Status(Form):
    """The whole control state. The answer to a command lacks ``installation`` and ``manager``."""

    revision: int
    edition: int
    paused: bool = False
    hearing: bool = False
    waiting: int = 0
    wanted: WantedEntry | None
    live: int | None
    releases: list[ReleaseEntry]
    engines: list[EngineEntry]
    gateways: list[GatewayEntry]
    metered: Tokens = Tokens()
    overruns: dict[str, dict[str, int]] = {}
    installation: str | None = None
    manager: ManagerEntry | None = None

    def release(self, number: int) -> ReleaseEntry | None:
        """Return a release by its number; None if there is none."""
        return next((release for release in self.releases if release.number == number), None)

    def release_list(self) -> ReleaseList:
        """Return the part of it that commands are decided by."""
        return ReleaseList(edition=self.edition, live=self.live, wanted=self.wanted, releases=self.releases)
