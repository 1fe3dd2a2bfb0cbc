"""The control state in the forms of the admin API."""

from __future__ import annotations

from runtime.core.metering.activity import Activities, GatewayActivity
from runtime.core.metering.usage import Usage, total
from runtime.core.swap.release import OVER, ReleaseState
from runtime.core.swap.routes import GatewayReport
from runtime.core.swap.state import ControlState, EngineRecord, Numbered, RefusedSet, Release
from runtime.core.views.forms import (
    EngineEntry,
    EngineUse,
    GatewayEntry,
    Outcome,
    Plan,
    PrefixCache,
    ReleaseEntry,
    Status,
    Tokens,
    WantedEntry,
)
from runtime.core.views.progress import expected_load, expected_state
from runtime.core.views.waiting import faults, prefix_cache, waits_for


def outcome(release: Numbered) -> Outcome:
    """Return ``live``, ``failed`` or ``in progress``: what became of the deploy of this release."""
    if release.state is ReleaseState.LIVE:
        return "live"
    if release.reason is not None and release.state in OVER:
        return "failed"
    return "in progress"


def status(state: ControlState, activity: Activities) -> Status:
    """Return the whole state for ``GET /admin/v1/status``, with what its gateways have counted."""
    live = state.live
    metered = total(usage for counts in activity.values() for usage in counts.metered.values())
    return Status(
        revision=state.revision,
        edition=state.edition,
        paused=state.paused > 0,
        hearing=state.hearing,
        waiting=state.waiting,
        wanted=_wanted(state),
        live=live.number if live else None,
        releases=[_entry(state, activity, release) for release in state.releases.values()],
        engines=[_engine(state, engine) for engine in state.engines.values()],
        gateways=[_gateway(state, activity, report) for report in state.gateways.values()],
        metered=_tokens(metered),
        overruns=_overruns(activity),
    )


def _overruns(activity: Activities) -> dict[str, dict[str, int]]:
    """Return how many hops took longer than their share, by chain and by step, over all gateways."""
    counts: dict[str, dict[str, int]] = {}
    for each in activity.values():
        for (chain, step), count in each.overruns.items():
            steps = counts.setdefault(chain, {})
            steps[step] = steps.get(step, 0) + count
    return counts


def _wanted(state: ControlState) -> WantedEntry | None:
    if state.wanted is None:
        return None
    release = state.came_to
    return WantedEntry(
        change=state.wanted.change,
        release=state.wanted.release,
        source=state.wanted.source,
        outcome=outcome(release) if release else "retired",
        reason=release.reason if release else None,
    )


def _entry(state: ControlState, activity: Activities, numbered: Numbered) -> ReleaseEntry:
    if isinstance(numbered, RefusedSet):
        return _refused(state, numbered)
    return _release(state, activity, numbered)


def _refused(state: ControlState, refused: RefusedSet) -> ReleaseEntry:
    """Return the entry of a set that was refused, with every member."""
    entry = ReleaseEntry(
        number=refused.number,
        source=refused.source,
        state=refused.state,
        outcome=outcome(refused),
        reason=refused.reason,
        waits_for=waits_for(state, refused),
        since=refused.entered.get(refused.state),
        entered={str(entered): at for entered, at in refused.entered.items()},
    )
    return ReleaseEntry.model_validate(entry.model_dump())


def _release(state: ControlState, activity: Activities, release: Release) -> ReleaseEntry:
    content, warming = release.content, state.progress.get(f"release {release.number}")
    acknowledged = state.acknowledgement_of(release)
    requests, hit_rate = prefix_cache(activity, release)
    return ReleaseEntry(
        number=release.number,
        source=release.source,
        name=content.model_set.name,
        model_set=content.digest,
        state=release.state,
        outcome=outcome(release),
        reason=release.reason,
        progress=warming.text if warming else None,
        waits_for=waits_for(state, release),
        since=release.entered.get(release.state),
        expected_in_state_s=expected_state(state, release),
        held=release.state is ReleaseState.STANDBY and release.held and state.is_wanted(release),
        was_live=release.was_live,
        warm=release.warm,
        leases=state.leases_on(release.number),
        oldest_lease_s=state.oldest_lease_on(release.number),
        engines={
            name: EngineUse(digest=digest, reused=_reused(state, release, digest))
            for name, digest in content.engines.items()
        },
        warmup=_tokens(release.warmup),
        entered={str(entered): at for entered, at in release.entered.items()},
        acknowledged=acknowledged.last,
        first_acknowledged=acknowledged.first,
        plan=Plan(**release.plan.as_json()) if release.plan else None,
        expected_s=_expected(state, release),
        prefix_cache=PrefixCache(requests=requests, hit_rate=hit_rate),
        faults=faults(state, release),
    )


def _tokens(usage: Usage) -> Tokens:
    return Tokens(prompt_tokens=usage.prompt, completion_tokens=usage.completion)


def _expected(state: ControlState, release: Release) -> dict[str, float]:
    """Return how many seconds each load and the warm-up took last, by what it was."""
    name = release.content.model_set.name
    steps = [f"load {name}/{engine}" for engine in release.content.engines] + [f"warm {name}"]
    return {step: state.history[step] for step in steps if step in state.history}


def _reused(state: ControlState, release: Release, digest: str) -> bool:
    engine = state.engines.get(digest)
    return engine is not None and engine.loaded_by != release.number


def _engine(state: ControlState, engine: EngineRecord) -> EngineEntry:
    progress = state.progress.get(f"engine {engine.digest}")
    return EngineEntry(
        digest=engine.digest,
        kind=engine.spec.kind if engine.spec else None,
        state=engine.state,
        phase=progress.stage.phase if progress and progress.stage else None,
        progress=progress.text if progress else None,
        since=progress.since if progress else None,
        expected_s=expected_load(state, engine.digest),
        reason=engine.reason,
        loaded_by=engine.loaded_by,
        releases=[release.number for release in state.users_of(engine.digest)],
    )


def _gateway(state: ControlState, activity: Activities, report: GatewayReport) -> GatewayEntry:
    counts = activity.get(report.gateway, GatewayActivity(report.gateway))
    return GatewayEntry(
        id=report.gateway,
        table=report.version,
        reports=report.sequence,
        leases=sum(report.leases.values()),
        lagging=report.gateway in state.lagging,
        cutover_ms=report.cutover_s * 1000.0,
        tasks=counts.tasks,
        clients=counts.clients,
    )
