"""How long things take, against how long they took last: for the status and the log."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState, Release


def elapsed_text(elapsed: float, expected: float | None) -> str:
    """Return the seconds that have passed, of how many if that is known: ``12 s of about 40 s``."""
    return f"{elapsed:.0f} s" if expected is None else f"{elapsed:.0f} s of about {expected:.0f} s"


def expected_load(state: ControlState, engine: str) -> float | None:
    """Return how many seconds the engine should take to load, or None if that is unknown."""
    known = [state.history[name] for name in state.load_names(engine) if name in state.history]
    return max(known, default=None)


def expected_state(state: ControlState, release: Release) -> float | None:
    """Return how many seconds the release's present state should take, or None if that is unknown."""
    if release.state is ReleaseState.LOADING:
        return _expected_loading(state, release)
    if release.state is ReleaseState.WARMING:
        return state.history.get(f"warm {release.content.model_set.name}")
    return None


def _expected_loading(state: ControlState, release: Release) -> float | None:
    """Return what the engines that are loaded for the release take: those of vLLM one after the other."""
    in_turn, longest = 0.0, 0.0
    for engine in state.engines.values():
        if engine.digest not in release.engines or engine.loaded_by != release.number:
            continue
        expected = expected_load(state, engine.digest)
        if expected is None:
            return None
        longest = max(longest, expected)
        in_turn += expected if engine.spec is not None and engine.spec.kind == "vllm" else 0.0
    return max(in_turn, longest) or None


def moves(before: ControlState, after: ControlState) -> Iterator[str]:
    """Yield a line for each release that is in another state than before."""
    if after.releases is before.releases:
        return
    for number, release in after.releases.items():
        old = before.releases.get(number)
        if old is None:
            yield f"release {number} from {release.source}: {release.state}"
        elif old.state is not release.state:
            # Once a release has loaded, the history says what just now its engines took.
            expected = None
            if isinstance(old, Release) and old.state is ReleaseState.WARMING:
                expected = expected_state(before, old)
            took = elapsed_text(release.entered[release.state] - old.entered[old.state], expected)
            yield f"release {number}: {release.state}, after {took} {old.state}"
