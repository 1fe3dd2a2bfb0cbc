"""What an operator sees: the control state as plain JSON. Field names are part of the admin API."""

from __future__ import annotations

from typing import Any

from runtime.core.policy import is_held
from runtime.core.release import ReleaseState
from runtime.core.state import ControlState, Release
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
        "edition": state.edition,
        "paused": state.paused > 0,
        "wanted": _wanted(state),
        "live": live.number if live else None,
        "releases": [_release(state, release) for release in state.releases.values()],
        "engines": _engines(state),
        "gateways": [
            {
                "id": report.gateway,
                "table": report.version,
                "leases": sum(report.leases.values()),
                "lagging": report.gateway in state.lagging,
                "cutover_ms": report.cutover_s * 1000.0,
            }
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
        "held": release.state is ReleaseState.STANDBY and not release.was_live and is_held(release),
        "was_live": release.was_live,
        "leases": state.leases_on(release.number),
        "oldest_lease_s": max(
            (r.oldest[release.number] for r in state.gateways.values() if release.number in r.oldest),
            default=None,
        ),
        "engines": {
            name: {"digest": digest, "reused": _reused(state, release, digest)}
            for name, digest in (content.engines.items() if content else ())
        },
        "warmup": {"prompt_tokens": release.warmup.prompt, "completion_tokens": release.warmup.completion},
        "entered": dict(release.entered),
        "acknowledged": release.acknowledged,
        "first_acknowledged": release.first_acknowledged,
        "plan": release.plan.as_json() if release.plan else None,
        "expected_s": _expected(state, release),
        "prefix_cache": _prefix_cache(state, release),
        "faults": sorted(
            {r.faults[release.number] for r in state.gateways.values() if release.number in r.faults}
        ),
    }


def _expected(state: ControlState, release: Release) -> dict[str, float]:
    """Return how many seconds each load and the warm-up took last, by what it was."""
    if release.content is None:
        return {}
    name = release.content.model_set.name
    steps = [f"load {name}/{engine}" for engine in release.content.engines] + [f"warm {name}"]
    return {step: state.history[step] for step in steps if step in state.history}


def _prefix_cache(state: ControlState, release: Release) -> dict[str, Any]:
    """Return which share of the first requests' prompt tokens came from the prefix cache."""
    first = [
        r.first_requests[release.number]
        for r in state.gateways.values()
        if release.number in r.first_requests
    ]
    spent = total(usage for _, usage in first)
    share = spent.cached / spent.prompt if spent.prompt else None
    return {"requests": sum(count for count, _ in first), "hit_rate": share}


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
