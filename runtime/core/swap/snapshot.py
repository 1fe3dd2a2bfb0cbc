"""The state as text, without what gateways report again: it replaces the journal's events up to a revision.

It outlives the Interlock that wrote it. So it is read leniently, as events are (``core.model_set.history``).
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
"""Fields of the state that are numbers."""

_RELEASE = TypeAdapter(Release)
_REFUSED = TypeAdapter(RefusedSet)
_ENGINE = TypeAdapter(EngineRecord)
_WANTED = TypeAdapter(Change | None)
_ROUTED = TypeAdapter(RouteChange)
_HISTORY = TypeAdapter(dict[str, float])

Store = Callable[[Any], Any]
"""Puts a model set's JSON away, and returns what stands for it; or the other way round."""


def _unchanged(document: Any) -> Any:
    return document


def encode(state: ControlState, put_away: Store = _unchanged) -> str:
    """Return the durable part of ``state``."""
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    return json.dumps(
        {
            "version": _VERSION,
            **numbers,
            "routed": _ROUTED.dump_python(state.routed, mode="json"),
            "wanted": _WANTED.dump_python(state.wanted, mode="json"),
            "history": dict(state.history),
            "releases": [_release(release, put_away) for release in state.releases.values()],
            "engines": [_ENGINE.dump_python(engine, mode="json") for engine in state.engines.values()],
        }
    )


def _release(release: Numbered, put_away: Store) -> Any:
    """Return it as JSON. A set that was refused has no content."""
    if isinstance(release, RefusedSet):
        return _REFUSED.dump_python(release, mode="json") | {"content": None}
    durable = replace(release, room_awaited=False)
    fields = _RELEASE.dump_python(durable, mode="json")
    return fields | {"content": put_away(fields["content"])}


def decode(text: str, fetch: Store = _unchanged) -> ControlState:
    """Return the state that ``encode`` wrote.

    Raises:
        ValueError: it is not one, or a later Interlock's.

    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError("it is of another version")
    releases = [_release_of(each, fetch) for each in document["releases"]]
    engines = [_engine_of(each) for each in document["engines"]]
    numbers: dict[str, Any] = {name: int(document.get(name, 0)) for name in _NUMBERS}
    return ControlState(
        **numbers,
        # An earlier version did not record when routes changed: it was at this revision or before.
        routed=_ROUTED.validate_python(document.get("routed", {"revision": numbers["revision"]})),
        wanted=_WANTED.validate_python(document.get("wanted")),
        history=_HISTORY.validate_python(document.get("history", {})),
        releases={release.number: release for release in releases},
        engines={engine.digest: engine for engine in engines},
    )


def _release_of(fields: dict[str, Any], fetch: Store) -> Numbered:
    content = fields.get("content")
    if content is None:
        return _REFUSED.validate_python(fields)
    return _RELEASE.validate_python({**fields, "content": content_of(fetch(content))})


def content_of(document: Any) -> Content:
    """Return a model set that was accepted once, perhaps by the rules of an older Interlock."""
    try:
        return Content.model_validate(document)
    except ValueError:
        return as_it_was(Content, document)


def _engine_of(fields: dict[str, Any]) -> EngineRecord:
    spec = fields.get("spec")
    engine = _ENGINE.validate_python({**fields, "spec": None})
    return engine if spec is None else replace(engine, spec=part_as_it_was(EngineSpec, spec))
