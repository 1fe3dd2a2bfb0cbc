"""The manager's state as Prometheus families: a view on ``ControlState``, nothing is counted here.

Which state something is in is part of the name: a state is none of the labels that there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from runtime.core.metering.series import Family, counted, measured
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState, EngineState
from runtime.observe.metrics import PREFIX

_NOTHING: dict[str, str] = {}


def control_families(state: ControlState) -> list[Family]:
    """Return what the manager knows now. Its counters are folded from the journal, so they outlast it."""
    return [*_releases(state), *_engines(state), *_gateways(state), *_counters(state)]


def _gauge(name: str, text: str, value: float) -> Family:
    return measured(f"{PREFIX}_{name}", text, [(_NOTHING, float(value))])


def _releases(state: ControlState) -> Iterator[Family]:
    number = state.live.number if state.live else 0
    yield _gauge("live_release", "Number of the release that takes new requests; 0 without one.", number)
    states = Counter(release.state for release in state.releases.values())
    for known in ReleaseState:
        yield _gauge(f"releases_{known.value}", f"Releases that are {known.value}.", states[known])
    held = [(release.number, state.leases_on(release.number)) for release in state.holding]
    yield measured(
        f"{PREFIX}_open_leases",
        "Requests under way on a release.",
        [({"release": str(release)}, float(leases)) for release, leases in held],
    )


def _engines(state: ControlState) -> Iterator[Family]:
    states = Counter(engine.state for engine in state.engines.values())
    for known in EngineState:
        yield _gauge(f"engines_{known.value}", f"Engines that are {known.value}.", states[known])


def _gateways(state: ControlState) -> Iterator[Family]:
    promoted = state.live.promoted if state.live else 0
    follow = sum(report.version >= promoted for report in state.gateways.values())
    yield _gauge("gateways", "Gateways that report.", len(state.gateways))
    yield _gauge("gateways_acknowledged", "Gateways that route by the live release's table.", follow)
    yield _gauge("gateways_lagging", "Gateways that are waited for no more.", len(state.lagging))
    yield _gauge("waiting_requests", "Requests that wait while the live release sleeps.", state.waiting)
    longest = max((report.cutover_s for report in state.gateways.values()), default=0.0)
    yield _gauge("cutover_seconds", "For how long the last cutover kept any gateway from admitting.", longest)


def _counters(state: ControlState) -> Iterator[Family]:
    def once(name: str, text: str, value: int) -> Family:
        return counted(f"{PREFIX}_{name}", text, [(_NOTHING, float(value))])

    yield once("cutovers", "Releases that have gone live, by a swap or a rollback.", state.cutovers)
    yield once("failed_releases", "Releases that have failed.", state.failures)
    warmed = [
        ({"release": str(r.number), "purpose": "warmup"}, r.warmup) for r in state.taken if r.warmup.total
    ]
    prompt = [(labels, float(usage.prompt)) for labels, usage in warmed]
    completion = [(labels, float(usage.completion)) for labels, usage in warmed]
    # The same names as the gateways': what a swap costs and what requests cost are one account.
    yield counted(f"{PREFIX}_prompt_tokens", "Prompt tokens, cached ones included.", prompt)
    yield counted(f"{PREFIX}_completion_tokens", "Generated tokens, reasoning included.", completion)
