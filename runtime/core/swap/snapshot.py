"""The state as text, without what gateways tell again: in it a journal's events are folded already.

It is the beginning of a journal whose first events are gone. So it is read as events are: by what it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from runtime.core.model_set.digest import Content
from runtime.core.model_set.engines import EngineSpec
from runtime.core.model_set.history import as_it_was, part_as_it_was
from runtime.core.swap.routes import RouteChange
from runtime.core.swap.state import (
    Change,
    ControlState,
    EngineRecord,
    Numbered,
    RefusedSet,
    Release,
)

_VERSION = 1

_NUMBERS = ("revision", "edition", "paused", "cutovers", "failures")
"""What of the state is a number."""

_RELEASE = TypeAdapter(Release)
_REFUSED = TypeAdapter(RefusedSet)
_ENGINE = TypeAdapter(EngineRecord)
_WANTED = TypeAdapter(Change | None)
_ROUTED = TypeAdapter(RouteChange)
_HISTORY = TypeAdapter(dict[str, float])

Store = Callable[[Any], Any]
"""Puts a model set's JSON away, and returns what stands for it; or the other way round."""


def _as_it_is(told: Any) -> Any:
    return told


def encode(state: ControlState, put_away: Store = _as_it_is) -> str:
    """Return the durable part of ``state``."""
    told = {name: getattr(state, name) for name in _NUMBERS}
    return json.dumps(
        {
            "version": _VERSION,
            **told,
            "routed": _ROUTED.dump_python(state.routed, mode="json"),
            "wanted": _WANTED.dump_python(state.wanted, mode="json"),
            "history": dict(state.history),
            "releases": [_release(release, put_away) for release in state.releases.values()],
            "engines": [_ENGINE.dump_python(engine, mode="json") for engine in state.engines.values()],
        }
    )


def _release(release: Numbered, put_away: Store) -> Any:
    """Return it as JSON. One without content is a set that was refused."""
    if isinstance(release, RefusedSet):
        return _REFUSED.dump_python(release, mode="json") | {"content": None}
    durable = replace(release, room_awaited=False)
    told = _RELEASE.dump_python(durable, mode="json")
    return told | {"content": put_away(told["content"])}


def decode(text: str, fetch: Store = _as_it_is) -> ControlState:
    """Return the state that ``encode`` wrote.

    Raises:
        ValueError: it is not one, or a later Interlock's.

    """
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise ValueError("it is of another version")
    releases = [_release_of(each, fetch) for each in told["releases"]]
    engines = [_engine_of(each) for each in told["engines"]]
    numbers: dict[str, Any] = {name: int(told.get(name, 0)) for name in _NUMBERS}
    return ControlState(
        **numbers,
        # An earlier version did not say when routes changed: it was then or before.
        routed=_ROUTED.validate_python(told.get("routed", {"revision": numbers["revision"]})),
        wanted=_WANTED.validate_python(told.get("wanted")),
        history=_HISTORY.validate_python(told.get("history", {})),
        releases={release.number: release for release in releases},
        engines={engine.digest: engine for engine in engines},
    )


def _release_of(told: dict[str, Any], fetch: Store) -> Numbered:
    kept = told.get("content")
    if kept is None:
        return _REFUSED.validate_python(told)
    return _RELEASE.validate_python({**told, "content": content_of(fetch(kept))})


def content_of(told: Any) -> Content:
    """Return a model set that was taken once."""
    try:
        return Content.model_validate(told)
    except ValueError:
        return as_it_was(Content, told)


def _engine_of(told: dict[str, Any]) -> EngineRecord:
    spec = told.get("spec")
    engine = _ENGINE.validate_python({**told, "spec": None})
    return engine if spec is None else replace(engine, spec=part_as_it_was(EngineSpec, spec))
