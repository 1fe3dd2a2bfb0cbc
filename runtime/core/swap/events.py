"""Things that happened. The durable ones are the journal: folding them again gives the same state.

``at`` is wall time in seconds. Reports of gateways are not durable: gateways send them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.core.metering.usage import Usage
from runtime.core.model_set.digest import Content
from runtime.core.model_set.history import as_it_was
from runtime.core.model_set.memory import SwapPlan
from runtime.core.swap.phase import Stage
from runtime.core.swap.release import Move
from runtime.core.swap.routes import GatewayReport


class Event(BaseModel):
    """Base of all events."""

    model_config = ConfigDict(frozen=True)

    at: float


class Wanted(Event):
    """A new model set was requested and could be read."""

    type: Literal["wanted"] = "wanted"
    change: str
    """Digest of the ``user_config`` that asked for it: the same one again is no change."""
    source: str
    content: Content


class Refused(Event):
    """A new model set was requested and cannot be used."""

    type: Literal["refused"] = "refused"
    change: str
    source: str
    reason: str


class Commanded(Event):
    """An operator's command was found to fit the state."""

    type: Literal["commanded"] = "commanded"
    action: Literal["promote", "abort", "rollback", "retry"]
    actor: str
    release: int
    live: int | None
    """The release that was live when the command was taken."""


class ReleasePlanned(Event):
    """What a release will load was laid out on the devices as they were."""

    type: Literal["release_planned"] = "release_planned"
    release: int
    plan: SwapPlan


class ReleaseMoved(Event):
    """The policy decided a move of one release; ``promote`` also demotes the one that was live."""

    type: Literal["release_moved"] = "release_moved"
    release: int
    move: Move
    reason: str | None = None


class ReleaseWarmed(Event):
    """The set's samples ran on every replica of every engine of the release."""

    type: Literal["release_warmed"] = "release_warmed"
    release: int
    usage: Usage = Usage()
    answers: dict[str, tuple[str, ...]] = {}
    """The answers to its probes, by the place of the probe in the model set."""
    seconds: float = 0.0


class ReleaseProbed(Event):
    """After a wake, the release's engines answer as they did at its warm-up."""

    type: Literal["release_probed"] = "release_probed"
    release: int
    usage: Usage = Usage()


class ProbeFailed(Event):
    """After a wake, an engine of the release answers otherwise than at its warm-up."""

    type: Literal["probe_failed"] = "probe_failed"
    release: int
    reason: str
    usage: Usage = Usage()


class ReleaseFailed(Event):
    """An effect on behalf of a candidate failed."""

    type: Literal["release_failed"] = "release_failed"
    release: int
    reason: str


class ReleaseDrained(Event):
    """No lease is open on a draining release any more, and the engines that only it uses are idle."""

    type: Literal["release_idle"] = "release_idle"  # as journals have had it from the first
    release: int


class DeadlinePassed(Event):
    """A release has stayed in one state for as long as it may."""

    type: Literal["deadline_passed"] = "deadline_passed"
    release: int
    reason: str


class EngineLoaded(Event):
    """Every replica of the engine runs."""

    type: Literal["engine_loaded"] = "engine_loaded"
    engine: str
    seconds: float = 0.0


class EngineFailed(Event):
    """The engine did not come up."""

    type: Literal["engine_failed"] = "engine_failed"
    engine: str
    reason: str


class EngineReleased(Event):
    """The policy decided that the engine is no longer needed."""

    type: Literal["engine_released"] = "engine_released"
    engine: str


class EngineUnloaded(Event):
    """The engine's application is gone."""

    type: Literal["engine_unloaded"] = "engine_unloaded"
    engine: str


class EngineSleeping(Event):
    """The policy decided that the engine gives its KV cache up."""

    type: Literal["engine_sleeping"] = "engine_sleeping"
    engine: str


class EngineSlept(Event):
    """Every replica of the engine has given its KV cache up."""

    type: Literal["engine_slept"] = "engine_slept"
    engine: str


class EngineWaking(Event):
    """The policy decided that the engine is needed again."""

    type: Literal["engine_waking"] = "engine_waking"
    engine: str


class EngineWoken(Event):
    """Every replica of the engine has its KV cache again."""

    type: Literal["engine_woken"] = "engine_woken"
    engine: str


class EngineDoubted(Event):
    """It has slept, a candidate needs it, and no release is left whose probes it could be held against."""

    type: Literal["engine_doubted"] = "engine_doubted"
    engine: str


class EngineMissing(Event):
    """After a restart: the journal says that the engine is loaded, and the cluster has none."""

    type: Literal["engine_missing"] = "engine_missing"
    engine: str


class EngineFound(Event):
    """After a restart: the cluster has an engine that the journal does not know."""

    type: Literal["engine_found"] = "engine_found"
    engine: str


class GatewayReported(Event):
    """A gateway reported the table that it routes by and the leases that it holds."""

    report: GatewayReport


class GatewayLost(Event):
    """A gateway has been silent for too long, or has said goodbye."""

    gateway: str


class GatewaysLag(Event):
    """Gateways had to follow the last change of routes by now."""

    revision: int


class RoomAwaited(Event):
    """Other engines should have freed by now the room that a release is planned with."""

    release: int


class ManagerRestarted(Event):
    """The manager has read its journal: there may be gateways that have not reported to it yet."""


class GatewaysHeard(Event):
    """Every gateway that was there before the restart and still is has had the time to report."""


class Progressed(Event):
    """An effect reports its progress; for people only."""

    subject: str
    text: str
    stage: Stage | None = None
    """Of an engine that comes up."""
    since: float | None = None
    """Wall time at which the load began."""
    waits: str | None = None
    """Why replicas of an engine have no place yet."""


Durable = (
    Wanted
    | Refused
    | Commanded
    | ReleasePlanned
    | ReleaseMoved
    | ReleaseWarmed
    | ReleaseProbed
    | ProbeFailed
    | ReleaseFailed
    | ReleaseDrained
    | DeadlinePassed
    | EngineLoaded
    | EngineFailed
    | EngineReleased
    | EngineUnloaded
    | EngineSleeping
    | EngineSlept
    | EngineWaking
    | EngineWoken
    | EngineDoubted
    | EngineMissing
    | EngineFound
)
"""Events that are written to the journal before they count."""

_CODEC: TypeAdapter[Durable] = TypeAdapter(Annotated[Durable, Field(discriminator="type")])


def encode(event: Durable, put_away: Callable[[Any], Any] | None = None) -> str:
    """Return ``event`` as the JSON text that the journal keeps.

    ``put_away`` keeps a model set's JSON elsewhere and returns what stands for it.
    """
    if put_away is None or not isinstance(event, Wanted):
        return event.model_dump_json()
    fields = event.model_dump(mode="json")
    return json.dumps(fields | {"content": put_away(fields["content"])})


def decode(text: str, fetch: Callable[[Any], Any] | None = None) -> Durable:
    """Return the event that ``encode`` wrote, this Interlock's or an older one's.

    ``fetch`` returns the model set for what stands for it.

    A wanted set that cannot be read any more becomes a refused one; if it is still wanted, it is read anew.

    Raises:
        ValueError: its type is unknown here, or a field of its type is missing or wrong.

    """
    fields = json.loads(text)
    if fetch is not None and isinstance(fields, dict) and fields.get("type") == "wanted":
        fields["content"] = fetch(fields.get("content"))
    try:
        return _CODEC.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"][:1] == ("wanted",):
            return _wanted_as_written(fields)
        path = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {first['msg']}" if path else first["msg"]) from error


def _wanted_as_written(fields: dict[str, Any]) -> Wanted | Refused:
    rest = {"at": fields.get("at"), "change": fields.get("change"), "source": fields.get("source")}
    try:
        return Wanted(**rest, content=as_it_was(Content, fields.get("content")))
    except ValueError as error:
        reason = f"an older Interlock took this set, and this one cannot read what it stored of it: {error}"
        return Refused(**{**rest, "change": ""}, reason=reason)
