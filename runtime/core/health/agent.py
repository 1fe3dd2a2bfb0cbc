"""The third tier of health: what clients get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from runtime.core.health.orchestration import ERRORS_DEGRADED, ERRORS_UNHEALTHY, serving, steps
from runtime.core.health.report import FEWEST, Facts, Reason, Tier, by_share, degraded, unhealthy
from runtime.core.metering.recent import OTHERS, WINDOW_SECONDS, Counts, Mark, Observed
from runtime.core.swap.state import ControlState, Release

LATE_DEGRADED = 0.05
"""Share of requests over their latency objective; an objective is meant for nearly all, not for all."""

LATE_UNHEALTHY = 0.5
"""From here on late answers are the rule."""

REFUSED_UNHEALTHY = 0.5
"""Share of requests that budgets refuse. A single refusal degrades: the tenant at its cap is down."""

MAX_TENANTS_NAMED = 5
"""How many tenants one sentence names."""

_REQUESTS = (Observed.IN_TIME, Observed.LATE, Observed.FAILED, Observed.REFUSED)


def agent(facts: Facts, recent: Counts) -> Tier:
    """Return how requests have ended lately."""
    return Tier(tuple(_reasons(facts.state, recent)), _figures(facts.state, recent))


def _reasons(state: ControlState, recent: Counts) -> Iterator[Reason]:
    if state.live is None:
        yield unhealthy("no release is live, so no request is answered; the orchestration tier says why")
    if not state.gateways:
        yield degraded("nothing is known of requests: no gateway reports")
    turned_away = recent.get(Mark(Observed.FAILED, 0, ""), 0)
    total = sum(count for mark, count in recent.items() if mark.observed in _REQUESTS)
    verdict = by_share(turned_away, total, ERRORS_DEGRADED, ERRORS_UNHEALTHY)
    if verdict is not None:
        yield Reason(
            verdict,
            f"{turned_away} of {total} requests were turned away within {WINDOW_SECONDS:g} s before any "
            "release took them: none was live, or the store did not answer",
        )
    for release in serving(state):
        for chain in _chains(release):
            yield from _chain(release, chain, recent)
    yield from _refused(state, recent)


def _chain(release: Release, chain: str, recent: Counts) -> Iterator[Reason]:
    counts = _requests(release, chain, recent)
    total, scope = sum(counts.values()), f"of chain {chain} of release {release.number}"
    verdict = by_share(counts[Observed.LATE], total, LATE_DEGRADED, LATE_UNHEALTHY)
    if verdict is not None:
        yield Reason(
            verdict,
            f"{counts[Observed.LATE]} of {total} requests {scope} took longer than "
            f"{_objective(release, chain):g} s; {_slow_steps(release, chain, recent)}",
        )
    verdict = by_share(counts[Observed.FAILED], total, ERRORS_DEGRADED, ERRORS_UNHEALTHY)
    if verdict is not None:
        yield Reason(
            verdict,
            f"{counts[Observed.FAILED]} of {total} requests {scope} ended in an error; "
            "see the orchestration tier and the gateways' log",
        )
    share = counts[Observed.REFUSED] / total if total else 0.0
    if counts[Observed.REFUSED] >= FEWEST and share >= REFUSED_UNHEALTHY:
        yield unhealthy(
            f"{counts[Observed.REFUSED]} of {total} requests {scope} were refused by budgets; "
            "see: interlock budgets list"
        )


def _slow_steps(release: Release, chain: str, recent: Counts) -> str:
    over = {
        step: count
        for known, step in steps(release)
        if known == chain
        and (count := recent.get(Mark(Observed.HOP_OVERRAN, release.number, chain, step), 0))
    }
    if over:
        return "hops over their share: " + ", ".join(f"{step} {count}" for step, count in over.items())
    return "no hop was over a share of the latency_budget that the chain declares for it, if any"


def _refused(state: ControlState, recent: Counts) -> Iterator[Reason]:
    """Name the tenants that are at their caps, those with most refusals first."""
    numbers = {release.number for release in serving(state)}
    tenants: Counter[str] = Counter()
    for mark, count in recent.items():
        if mark.observed is Observed.REFUSED and mark.release in numbers:
            tenants[mark.detail] += count
    if not tenants:
        return
    named = [(tenant, count) for tenant, count in tenants.most_common() if tenant != OTHERS]
    listed = ", ".join(
        f"{tenant or 'callers without a key'} {count}" for tenant, count in named[:MAX_TENANTS_NAMED]
    )
    more = "" if len(named) <= MAX_TENANTS_NAMED and OTHERS not in tenants else " and others"
    yield degraded(
        f"tenants are at their caps, with so many requests refused: {listed}{more}; "
        "see: interlock budgets list"
    )


def _figures(state: ControlState, recent: Counts) -> dict[str, Any]:
    return {
        "window_s": WINDOW_SECONDS,
        "turned_away": recent.get(Mark(Observed.FAILED, 0, ""), 0),
        "chains": [
            {
                "release": release.number,
                "chain": chain,
                "objective_s": _objective(release, chain),
                **{
                    observed.value.replace(" ", "_"): count
                    for observed, count in _requests(release, chain, recent).items()
                },
            }
            for release in serving(state)
            for chain in _chains(release)
        ],
    }


def _requests(release: Release, chain: str, recent: Counts) -> dict[Observed, int]:
    counts = dict.fromkeys(_REQUESTS, 0)
    for mark, count in recent.items():
        if mark.observed in counts and (mark.release, mark.chain) == (release.number, chain):
            counts[mark.observed] += count
    return counts


def _chains(release: Release) -> list[str]:
    return list(release.content.model_set.chains)


def _objective(release: Release, chain: str) -> float:
    return release.content.model_set.chains[chain].latency_objective
