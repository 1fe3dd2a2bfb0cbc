"""What is wrong, told from the facts: every sentence says what, where, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from runtime.core.digest import SHORT
from runtime.core.health import (
    Deployment,
    Facts,
    Health,
    Infrastructure,
    Reason,
    Tier,
    Verdict,
    degraded,
    unhealthy,
)
from runtime.core.policy import engines_loaded
from runtime.core.recent import OTHERS, WINDOW_SECONDS, Counts, Mark, What, summed
from runtime.core.release import ReleaseState
from runtime.core.state import EXISTING, ControlState, EngineState, Release
from runtime.core.status import outcome
from runtime.core.waiting import faults, waits_for

NODE_NEWS_SECONDS = 600.0
"""How long the death of a node is told: Ray remembers it for ever, also of one that was replaced."""

FEWEST = 3
"""How many hops or requests have to go wrong to be told of: one of two is a share of half, and no sign."""

ERRORS_DEGRADED = 0.01
"""Share of hops, or of requests, that end in an error: one in a hundred is what clients start to see."""

ERRORS_UNHEALTHY = 0.25
"""From here on a client's one or two retries do not hide it."""

LATE_DEGRADED = 0.05
"""Share of requests over their latency objective; an objective is meant for nearly all, not for all."""

LATE_UNHEALTHY = 0.5
"""Being late is then what is usual."""

REFUSED_UNHEALTHY = 0.5
"""Share of requests that budgets refuse. A single refusal degrades: the tenant at its cap is down."""

TENANTS_TOLD = 5
"""How many tenants one sentence names."""

_SERVING = (ReleaseState.LIVE, ReleaseState.DRAINING)
_BROKEN = ("UNHEALTHY", "DEPLOY_FAILED")


def examine(facts: Facts) -> Health:
    """Return the three tiers."""
    recent = summed(report.recent for report in facts.state.gateways.values())
    return Health(
        Tier(tuple(_infrastructure(facts)), _infrastructure_numbers(facts)),
        Tier(tuple(_orchestration(facts, recent)), _orchestration_numbers(facts.state, recent)),
        Tier(tuple(_agent(facts.state, recent)), _agent_numbers(facts.state, recent)),
    )


# -- infrastructure -------------------------------------------------------------------------------


def _infrastructure(facts: Facts) -> Iterator[Reason]:
    if facts.store:
        yield unhealthy(f"{facts.store}: keys and budgets cannot be checked; see INTERLOCK_STORE_URL")
    cluster = facts.cluster
    if isinstance(cluster, str):
        yield degraded(f"nothing is known of nodes, replicas and GPUs: {cluster}; see: ray status")
        return
    yield from _nodes(cluster, facts.now)
    yield from _proxies(cluster)
    for deployment in cluster.deployments:
        if not deployment.engine:
            yield from _replicas(deployment.name, [deployment], 1, unhealthy, "")
    yield from _engine_replicas(facts.state, cluster)


def _nodes(cluster: Infrastructure, now: float) -> Iterator[Reason]:
    if not any(node.alive for node in cluster.nodes):
        yield unhealthy("no Ray node is alive; see: ray status")
    for node in cluster.nodes:
        if not node.alive and not node.expected and now - node.ended < NODE_NEWS_SECONDS:
            why = f" ({node.why})" if node.why else ""
            yield degraded(
                f"node {node.id[:SHORT]} at {node.address} died {now - node.ended:.0f} s ago{why}; "
                "replace it if replicas have no place"
            )


def _proxies(cluster: Infrastructure) -> Iterator[Reason]:
    sick = [node for node, status in cluster.proxies.items() if status == "UNHEALTHY"]
    tell = unhealthy if len(sick) == len(cluster.proxies) else degraded
    for node in sick:
        yield tell(f"Serve's HTTP proxy on node {node} is unhealthy: no client gets an answer there")


def _engine_replicas(state: ControlState, cluster: Infrastructure) -> Iterator[Reason]:
    """Tell of engines that have come up and of which something is missing since."""
    for engine in state.engines.values():
        users = [release for release in state.users_of(engine.digest) if release.content]
        if engine.state not in EXISTING or not users:
            continue
        found = [d for d in cluster.deployments if d.engine and engine.digest.startswith(d.engine)]
        live = state.live is not None and engine.digest in state.live.engines
        wanted = engine.spec.replicas if engine.spec else 1
        gpus = engine.spec is not None and engine.spec.device == "gpu"
        hint = f"; {cluster.gpus_free:g} of {cluster.gpus:g} GPUs are free" if gpus else ""
        named = f"{_engine(users[-1], engine.digest)} of {_numbers(users)}"
        yield from _replicas(named, found, wanted, unhealthy if live else degraded, hint)


def _replicas(name: str, found: list[Deployment], least: int, none_runs: Any, hint: str) -> Iterator[Reason]:
    """Tell if less runs than Serve brings up, or than ``least``."""
    running, brought_up = sum(d.running for d in found), sum(d.wanted for d in found)
    # More that come because load has grown are no fault; those that cannot be placed have a message.
    growing = all(d.status == "UPSCALING" and not d.message for d in found) and bool(found)
    wanted = least if growing else max(least, brought_up)
    broken = next((d.status for d in found if d.status in _BROKEN), "")
    if running >= wanted and not broken:
        return
    message = next((d.message.strip().splitlines()[-1].strip() for d in found if d.message.strip()), "")
    said = (f", Serve calls it {broken}" if broken else "") + (f": {message}" if message else "")
    tell = degraded if running else none_runs
    yield tell(
        f"{running} of {wanted} replicas of {name} run{hint}{said}; Serve tries again; see: serve status"
    )


def _infrastructure_numbers(facts: Facts) -> dict[str, Any]:
    cluster = facts.cluster
    if isinstance(cluster, str):
        return {}
    alive = sum(node.alive for node in cluster.nodes)
    return {
        "nodes": {"alive": alive, "dead": len(cluster.nodes) - alive},
        "gpus": {"total": cluster.gpus, "free": cluster.gpus_free},
        "proxies": dict(cluster.proxies),
        "deployments": [
            {"name": d.name, "running": d.running, "wanted": d.wanted, "status": d.status}
            for d in cluster.deployments
        ],
    }


# -- orchestration --------------------------------------------------------------------------------


def _orchestration(facts: Facts, recent: Counts) -> Iterator[Reason]:
    state = facts.state
    yield from _release(state)
    yield from _wish(state)
    yield from _gateways(facts)
    for release in _serving(state):
        for chain, step in _steps(release):
            failed = recent.get(Mark(What.HOP_FAILED, release.number, chain, step), 0)
            ended = failed + recent.get(Mark(What.HOP_DONE, release.number, chain, step), 0)
            verdict = _by_share(failed, ended, ERRORS_DEGRADED, ERRORS_UNHEALTHY)
            if verdict is not None:
                where = f"step {step} of chain {chain} of release {release.number}"
                yield Reason(
                    verdict,
                    f"{_of(failed, ended)} hops of {where} failed within {WINDOW_SECONDS:g} s, on "
                    f"{_engine_of_step(release, chain, step)}; see the gateways' log for their errors",
                )


def _release(state: ControlState) -> Iterator[Reason]:
    live = state.live
    if live is None:
        coming = state.releases.get(state.wanted.release) if state.wanted else None
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
            f"{state.waiting} requests wait"
        )
    elif not (live.proven and engines_loaded(state, live)):
        away = [
            f"{_engine(live, record.digest)} is {record.state}"
            for record in state.engines.values()
            if record.digest in live.engines and record.state is not EngineState.LOADED
        ]
        said = ", ".join(away) or "its engines have yet to answer as they did at their warm-up"
        yield unhealthy(
            f"release {live.number} is live and answers nobody: {said}; it comes back by itself, or: "
            "interlock rollback"
        )


def _wish(state: ControlState) -> Iterator[Reason]:
    coming = state.releases.get(state.wanted.release) if state.wanted else None
    if coming is None or coming.state is ReleaseState.LIVE:
        return
    if outcome(coming) == "failed":
        reason = (coming.reason or "").splitlines()[0]
        yield degraded(
            f"release {coming.number} from {coming.source} failed: {reason}; mend it and deploy it again"
        )
    for fault in faults(state, coming):
        yield degraded(f"a gateway cannot prepare release {coming.number}: {fault}")


def _gateways(facts: Facts) -> Iterator[Reason]:
    state = facts.state
    silent = {
        name: seconds
        for name, seconds in facts.silent.items()
        if name in state.gateways and seconds > facts.silent_after
    }
    out = state.lagging | silent.keys()
    tell = unhealthy if out >= state.gateways.keys() else degraded
    if not state.gateways:
        yield unhealthy("no gateway reports: see the Gateway deployment with: serve status")
    if state.hearing:
        yield degraded("the manager has restarted and has yet to hear of every gateway")
    for name in sorted(state.lagging):
        yield tell(f"{name} does not follow the release table and takes no requests; Serve replaces it")
    for name, seconds in sorted(silent.items()):
        yield tell(
            f"{name} has not reported for {seconds:.0f} s: it is dead or cut off from the manager, "
            "and will be taken as gone"
        )


def _orchestration_numbers(state: ControlState, recent: Counts) -> dict[str, Any]:
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
                "done": recent.get(Mark(What.HOP_DONE, release.number, chain, step), 0),
                "failed": recent.get(Mark(What.HOP_FAILED, release.number, chain, step), 0),
                "overran": recent.get(Mark(What.HOP_OVERRAN, release.number, chain, step), 0),
            }
            for release in _serving(state)
            for chain, step in _steps(release)
        ],
    }


# -- agent ----------------------------------------------------------------------------------------


def _agent(state: ControlState, recent: Counts) -> Iterator[Reason]:
    if state.live is None:
        yield unhealthy("no release is live, so no request is answered; the orchestration tier says why")
    if not state.gateways:
        yield degraded("nothing is known of requests: no gateway reports")
    turned_away = recent.get(Mark(What.FAILED, 0, ""), 0)
    if turned_away >= FEWEST:
        yield unhealthy(
            f"{turned_away} requests were turned away within {WINDOW_SECONDS:g} s before any release took "
            "them: none was live, or the store did not answer"
        )
    for release in _serving(state):
        for chain in _chains(release):
            yield from _chain(release, chain, recent)
    yield from _refused(state, recent)


def _chain(release: Release, chain: str, recent: Counts) -> Iterator[Reason]:
    counts = _requests(release, chain, recent)
    total, where = sum(counts.values()), f"of chain {chain} of release {release.number}"
    verdict = _by_share(counts[What.LATE], total, LATE_DEGRADED, LATE_UNHEALTHY)
    if verdict is not None:
        yield Reason(
            verdict,
            f"{_of(counts[What.LATE], total)} requests {where} took longer than "
            f"{_objective(release, chain):g} s; {_slow_steps(release, chain, recent)}",
        )
    verdict = _by_share(counts[What.FAILED], total, ERRORS_DEGRADED, ERRORS_UNHEALTHY)
    if verdict is not None:
        yield Reason(
            verdict,
            f"{_of(counts[What.FAILED], total)} requests {where} ended in an error; "
            "the orchestration tier and the gateways' log tell which",
        )
    share = counts[What.REFUSED] / total if total else 0.0
    if counts[What.REFUSED] >= FEWEST and share >= REFUSED_UNHEALTHY:
        yield unhealthy(
            f"{_of(counts[What.REFUSED], total)} requests {where} were refused by budgets; "
            "see: interlock budgets list"
        )


def _slow_steps(release: Release, chain: str, recent: Counts) -> str:
    over = {
        step: count
        for known, step in _steps(release)
        if known == chain and (count := recent.get(Mark(What.HOP_OVERRAN, release.number, chain, step), 0))
    }
    if over:
        return "hops over their share: " + ", ".join(f"{step} {count}" for step, count in over.items())
    return "no hop was over a share of the latency_budget that the chain declares for it, if any"


def _refused(state: ControlState, recent: Counts) -> Iterator[Reason]:
    """Name the tenants that are at their caps, those with most refusals first."""
    numbers = {release.number for release in _serving(state)}
    tenants: Counter[str] = Counter()
    for mark, count in recent.items():
        if mark.what is What.REFUSED and mark.release in numbers:
            tenants[mark.detail] += count
    if not tenants:
        return
    named = [(tenant, count) for tenant, count in tenants.most_common() if tenant != OTHERS]
    told = ", ".join(f"{tenant or 'callers without a key'} {count}" for tenant, count in named[:TENANTS_TOLD])
    more = "" if len(named) <= TENANTS_TOLD and OTHERS not in tenants else " and others"
    yield degraded(
        f"tenants are at their caps, with so many requests refused: {told}{more}; see: interlock budgets list"
    )


def _agent_numbers(state: ControlState, recent: Counts) -> dict[str, Any]:
    return {
        "window_s": WINDOW_SECONDS,
        "turned_away": recent.get(Mark(What.FAILED, 0, ""), 0),
        "chains": [
            {
                "release": release.number,
                "chain": chain,
                "objective_s": _objective(release, chain),
                **{
                    what.value.replace(" ", "_"): count
                    for what, count in _requests(release, chain, recent).items()
                },
            }
            for release in _serving(state)
            for chain in _chains(release)
        ],
    }


# -- words and numbers ----------------------------------------------------------------------------


def _by_share(wrong: int, total: int, bad: float, worse: float) -> Verdict | None:
    """Return what so many of ``total`` mean; None if they are too few to mean anything."""
    if wrong < FEWEST or wrong < bad * total:
        return None
    return Verdict.UNHEALTHY if wrong >= worse * total else Verdict.DEGRADED


def _requests(release: Release, chain: str, recent: Counts) -> dict[What, int]:
    counts = dict.fromkeys((What.IN_TIME, What.LATE, What.FAILED, What.REFUSED), 0)
    for mark, count in recent.items():
        if mark.what in counts and (mark.release, mark.chain) == (release.number, chain):
            counts[mark.what] += count
    return counts


def _serving(state: ControlState) -> list[Release]:
    """Return the releases that requests run on: what others have done is over."""
    return [r for r in state.releases.values() if r.state in _SERVING]


def _chains(release: Release) -> list[str]:
    return list(release.content.model_set.chains) if release.content else []


def _steps(release: Release) -> list[tuple[str, str]]:
    chains = release.content.model_set.chains if release.content else {}
    return [(name, step.id) for name, chain in chains.items() for step in chain.steps]


def _objective(release: Release, chain: str) -> float:
    assert release.content is not None  # noqa: S101 - it has this chain
    return release.content.model_set.chains[chain].latency_objective


def _engine_of_step(release: Release, chain: str, step: str) -> str:
    assert release.content is not None  # noqa: S101 - it has this step
    name = next(s.call.engine for s in release.content.model_set.chains[chain].steps if s.id == step)
    return _engine(release, release.content.engines[name])


def _engine(release: Release, digest: str) -> str:
    """Return an engine's name in a release, and which it is."""
    engines = release.content.engines if release.content else {}
    names = [name for name, known in engines.items() if known == digest]
    return f"engine {'/'.join(names)} ({digest[:SHORT]})"


def _numbers(releases: list[Release]) -> str:
    return "release " + ", ".join(str(release.number) for release in releases)


def _of(wrong: int, total: int) -> str:
    return f"{wrong} of {total}"
