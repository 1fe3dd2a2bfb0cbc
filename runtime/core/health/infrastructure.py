"""The first tier of health: what Interlock runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from runtime.core.health.orchestration import engine_in
from runtime.core.health.report import Deployment, Facts, Infrastructure, Reason, Tier, degraded, unhealthy
from runtime.core.model_set.digest import SHORT
from runtime.core.swap.state import EXISTING, ControlState, Release

NODE_NEWS_SECONDS = 600.0
"""How long the death of a node is shown: Ray remembers it for ever, also of one that was replaced."""

_BROKEN = ("UNHEALTHY", "DEPLOY_FAILED")


def infrastructure(facts: Facts) -> Tier:
    """Return how nodes, proxies, replicas and the store are."""
    return Tier(tuple(_reasons(facts)), _figures(facts))


def _reasons(facts: Facts) -> Iterator[Reason]:
    if facts.store:
        yield unhealthy(f"{facts.store}: keys and budgets cannot be checked; see INTERLOCK_STORE_URL")
    cluster = facts.cluster
    if isinstance(cluster, str):
        yield degraded(f"nothing is known of nodes, replicas and GPUs: {cluster}; see: ray status")
        return
    yield from _nodes(cluster, facts.now)
    yield from _store(facts, cluster)
    yield from _proxies(cluster)
    for deployment in cluster.deployments:
        if not deployment.engine:
            yield from _replicas(deployment.name, [deployment], unhealthy, "")
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


def _store(facts: Facts, cluster: Infrastructure) -> Iterator[Reason]:
    nodes = sum(node.alive for node in cluster.nodes)
    if facts.store_of_one_node and nodes > 1:
        yield degraded(
            f"the store is SQLite, which is for one node, and the cluster has {nodes}: "
            "no gateway starts on the others; set INTERLOCK_STORE_URL to one PostgreSQL database everywhere"
        )
    for name in facts.astray:
        yield degraded(
            f"{name} uses another store than the manager, and does not follow it; "
            "set INTERLOCK_STORE_URL to the same PostgreSQL database on every node"
        )


def _proxies(cluster: Infrastructure) -> Iterator[Reason]:
    sick = [node for node, status in cluster.proxies.items() if status == "UNHEALTHY"]
    severity = unhealthy if len(sick) == len(cluster.proxies) else degraded
    for node in sick:
        yield severity(f"Serve's HTTP proxy on node {node} is unhealthy: no client gets an answer there")


def _engine_replicas(state: ControlState, cluster: Infrastructure) -> Iterator[Reason]:
    """Yield engines that had come up and of which a replica is missing now."""
    for engine in state.engines.values():
        users = state.users_of(engine.digest)
        if engine.state not in EXISTING or not users:
            continue
        found = [d for d in cluster.deployments if d.engine and engine.digest.startswith(d.engine)]
        live = state.live is not None and engine.digest in state.live.engines
        gpus = engine.spec is not None and engine.spec.device == "gpu"
        hint = f"; {cluster.gpus_free:g} of {cluster.gpus:g} GPUs are free" if gpus else ""
        named = f"{engine_in(users[-1], engine.digest)} of {_numbers(users)}"
        yield from _replicas(named, found, unhealthy if live else degraded, hint)


def _replicas(
    name: str, found: list[Deployment], none_runs: Callable[[str], Reason], hint: str
) -> Iterator[Reason]:
    """Yield a reason if fewer run than Serve brings up; autoscaling changes the declared number."""
    running, brought_up = sum(d.running for d in found), sum(d.wanted for d in found)
    # More that come because load has grown are no fault; those that cannot be placed have a message.
    growing = all(d.status == "UPSCALING" and not d.message for d in found)
    wanted = 1 if growing else max(1, brought_up)
    broken = next((d.status for d in found if d.status in _BROKEN), "")
    if running >= wanted and not broken:
        return
    message = next((d.message.strip().splitlines()[-1].strip() for d in found if d.message.strip()), "")
    details = (f", Serve calls it {broken}" if broken else "") + (f": {message}" if message else "")
    severity = degraded if running else none_runs
    yield severity(
        f"{running} of {wanted} replicas of {name} run{hint}{details}; Serve tries again; see: serve status"
    )


def _figures(facts: Facts) -> dict[str, Any]:
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


def _numbers(releases: Sequence[Release]) -> str:
    return "release " + ", ".join(str(release.number) for release in releases)
