"""The second tier of health: what Interlock makes of what it runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from runtime.core.health.report import Facts, Reason, Tier, by_share, degraded, unhealthy
from runtime.core.loops import NEWS_SECONDS, LoopReport
from runtime.core.metering.recent import WINDOW_SECONDS, Counts, Mark, Observed
from runtime.core.model_set.digest import SHORT
from runtime.core.swap.policy.promotion import answers
from runtime.core.swap.release import SERVING
from runtime.core.swap.state import ControlState, EngineState, Release
from runtime.core.views.status import outcome
from runtime.core.views.waiting import faults, waits_for

ERRORS_DEGRADED = 0.01
"""Share of hops, or of requests, that end in an error: one in a hundred is what clients start to see."""

ERRORS_UNHEALTHY = 0.25
"""From here on a client's one or two retries do not hide it."""


def orchestration(facts: Facts, recent: Counts) -> Tier:
    """Return how the live release, its engines, the gateways and the hops are."""
    return Tier(tuple(_reasons(facts, recent)), _figures(facts.state, recent))


def _reasons(facts: Facts, recent: Counts) -> Iterator[Reason]:
    state = facts.state
    yield from _release(state)
    yield from _wanted(state)
    yield from _gateways(facts)
    yield from _uncounted(facts)
    yield from _broken_loops("the manager", facts.loops, facts.now)
    for name, activity in sorted(facts.activity.items()):
        yield from _broken_loops(name, activity.loops, facts.now)
    for release in serving(state):
        for chain, step in steps(release):
            failed = recent.get(Mark(Observed.HOP_FAILED, release.number, chain, step), 0)
            ended = failed + recent.get(Mark(Observed.HOP_DONE, release.number, chain, step), 0)
            verdict = by_share(failed, ended, ERRORS_DEGRADED, ERRORS_UNHEALTHY)
            if verdict is not None:
                scope = f"step {step} of chain {chain} of release {release.number}"
                yield Reason(
                    verdict,
                    f"{failed} of {ended} hops of {scope} failed within {WINDOW_SECONDS:g} s, on "
                    f"{_engine_of_step(release, chain, step)}; see the gateways' log for their errors",
                )


def _uncounted(facts: Facts) -> Iterator[Reason]:
    for engine, tokens in sorted(facts.uncounted.items()):
        yield degraded(
            f"engine {engine} has generated {tokens:g} tokens that no call has counted, so neither has the "
            "ledger; please report this"
        )


def _release(state: ControlState) -> Iterator[Reason]:
    live = state.live
    if live is None:
        coming = state.came_to
        if coming is None:
            yield unhealthy("no release is live and none is wanted: name a model set in user_config")
        else:
            yield unhealthy(
                f"no release is live: release {coming.number} is {coming.state}, which waits for "
                f"{waits_for(state, coming) or 'nothing'}; see: interlock status"
            )
    elif state.paused:
        yield degraded(
            f"release {live.number} sleeps for a swap, as its model set's strategy says: "
            f"{state.waiting} requests wait; see: interlock status"
        )
    elif not answers(state, live):
        away = [
            f"{engine_in(live, record.digest)} is {record.state}"
            for record in state.engines.values()
            if record.digest in live.engines and record.state is not EngineState.LOADED
        ]
        cause = ", ".join(away) or "its engines have yet to answer as they did at their warm-up"
        yield unhealthy(
            f"release {live.number} is live and answers nobody: {cause}; it comes back by itself, or: "
            "interlock rollback"
        )


def _wanted(state: ControlState) -> Iterator[Reason]:
    coming = state.came_to
    if coming is not None and outcome(coming) == "failed":
        reason = (coming.reason or "no reason was kept").splitlines()[0]
        again = f"interlock retry {coming.number}" if isinstance(coming, Release) else ""
        mended = "deploy what is mended (the same path again: with another `change` in user_config)"
        yield degraded(
            f"release {coming.number} from {coming.source} failed: {reason}; "
            + (f"try it again as it is: {again}; or {mended}" if again else mended)
        )
    for release in state.taken:
        for fault in faults(state, release):
            yield degraded(
                f"a gateway cannot reach an engine of release {release.number}: {fault}; it tries again"
            )


def _gateways(facts: Facts) -> Iterator[Reason]:
    state = facts.state
    silent = {
        name: seconds
        for name, seconds in facts.silent.items()
        if name in state.gateways and seconds > facts.silent_after
    }
    out = state.lagging | silent.keys()
    severity = unhealthy if out >= state.gateways.keys() else degraded
    if not state.gateways:
        yield unhealthy("no gateway reports: see the Gateway deployment with: serve status")
    if state.hearing:
        yield degraded("the manager has restarted, and not every gateway has reported to it yet")
    for name in sorted(state.lagging):
        yield severity(f"{name} does not follow the routing table and takes no requests; Serve replaces it")
    for name, seconds in sorted(silent.items()):
        yield severity(
            f"{name} has not reported for {seconds:.0f} s: it is dead or cut off from the manager, "
            "and will be taken as gone"
        )


def _broken_loops(process: str, reports: Sequence[LoopReport], now: float) -> Iterator[Reason]:
    """Yield the loops of a process that broke lately; metrics count them for good."""
    for report in reports:
        ago = max(0.0, now - report.at)
        if ago < NEWS_SECONDS:
            times = "once" if report.restarts == 1 else f"{report.restarts} times"
            yield degraded(
                f"loop {report.loop} of {process} broke {times}, last {ago:.0f} s ago, by {report.error}; "
                "it is started again each time; see the log of that process"
            )


def _figures(state: ControlState, recent: Counts) -> dict[str, Any]:
    live = state.live
    followed = [r for r in state.gateways.values() if live is not None and r.version >= live.promoted]
    engines = [state.engines.get(digest) for digest in live.engines] if live is not None else []
    ready = sum(engine is not None and engine.state is EngineState.LOADED for engine in engines)
    return {
        "live": live.number if live is not None else None,
        "engines": {"ready": ready, "wanted": len(engines)},
        "gateways": {"known": len(state.gateways), "acknowledged": len(followed)},
        "window_s": WINDOW_SECONDS,
        "hops": [
            {
                "release": release.number,
                "chain": chain,
                "step": step,
                "done": recent.get(Mark(Observed.HOP_DONE, release.number, chain, step), 0),
                "failed": recent.get(Mark(Observed.HOP_FAILED, release.number, chain, step), 0),
                "overran": recent.get(Mark(Observed.HOP_OVERRAN, release.number, chain, step), 0),
            }
            for release in serving(state)
            for chain, step in steps(release)
        ],
    }


def serving(state: ControlState) -> list[Release]:
    """Return the releases that requests run on: what others have done is over."""
    return [r for r in state.unretired if r.state in SERVING]


def steps(release: Release) -> list[tuple[str, str]]:
    """Return every step of the release, after its chain."""
    chains = release.content.model_set.chains
    return [(name, step.id) for name, chain in chains.items() for step in chain.steps]


def _engine_of_step(release: Release, chain: str, step: str) -> str:
    name = next(s.kind.engine for s in release.content.model_set.chains[chain].steps if s.id == step)
    return engine_in(release, release.content.engines[name])


def engine_in(release: Release, digest: str) -> str:
    """Return an engine's name in a release, and which it is."""
    return f"engine {'/'.join(release.content.names_of(digest))} ({digest[:SHORT]})"
