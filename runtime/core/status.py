"""What an operator sees: the control state as plain JSON. Field names are part of the admin API."""

from __future__ import annotations

from typing import Any

from runtime.core.release import ReleaseState
from runtime.core.swap import ControlState, Release
from runtime.core.usage import total

_OVER = frozenset({ReleaseState.FAILED, ReleaseState.UNLOADING, ReleaseState.RETIRED})


def outcome(release: Release) -> str:
    """Return ``live``, ``failed`` or ``in progress``: what became of the wish for this release."""
    if release.state is ReleaseState.LIVE:
        return "live"
    if release.reason is not None and release.state in _OVER:
        return "failed"
    return "in progress"


def status(state: ControlState) -> dict[str, Any]:
    """Return the whole state for ``GET /admin/v1/status``."""
    live = state.live
    metered = total(usage for report in state.gateways.values() for usage in report.metered.values())
    return {
        "revision": state.revision,
        "wanted": _wanted(state),
        "live": live.number if live else None,
        "releases": [_release(state, release) for release in state.releases.values()],
        "engines": _engines(state),
        "gateways": [
            {"id": report.gateway, "table": report.version, "leases": sum(report.leases.values())}
            for report in state.gateways.values()
        ],
        "metered": {"prompt_tokens": metered.prompt, "completion_tokens": metered.completion},
    }


def _wanted(state: ControlState) -> dict[str, Any] | None:
    if state.wanted is None:
        return None
    release = state.releases.get(state.wanted.release)
    return {
        "change": state.wanted.change,
        "release": state.wanted.release,
        "source": state.wanted.source,
        "outcome": outcome(release) if release else "retired",
        "reason": release.reason if release else None,
    }


def _release(state: ControlState, release: Release) -> dict[str, Any]:
    content = release.content
    return {
        "number": release.number,
        "source": release.source,
        "name": content.model_set.name if content else None,
        "model_set": content.digest if content else None,
        "state": release.state,
        "outcome": outcome(release),
        "reason": release.reason,
        "progress": state.progress.get(f"release {release.number}"),
        "leases": state.leases_on(release.number),
        "engines": {
            name: {"digest": digest, "reused": _reused(state, release, digest)}
            for name, digest in (content.engines.items() if content else ())
        },
        "warmup": {"prompt_tokens": release.warmup.prompt, "completion_tokens": release.warmup.completion},
        "entered": dict(release.entered),
        "acknowledged": release.acknowledged,
        "faults": sorted(
            {r.faults[release.number] for r in state.gateways.values() if release.number in r.faults}
        ),
    }


def _reused(state: ControlState, release: Release, digest: str) -> bool:
    engine = state.engines.get(digest)
    return engine is not None and engine.loaded_by != release.number


def _engines(state: ControlState) -> list[dict[str, Any]]:
    return [
        {
            "digest": engine.digest,
            "kind": engine.spec.kind if engine.spec else None,
            "state": engine.state,
            "progress": state.progress.get(f"engine {engine.digest}"),
            "reason": engine.reason,
            "loaded_by": engine.loaded_by,
            "releases": [release.number for release in state.users_of(engine.digest)],
        }
        for engine in state.engines.values()
    ]
