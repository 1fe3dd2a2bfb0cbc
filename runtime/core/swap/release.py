"""The transition table: which states a release can be in, and every move between them.

The table is the state machine. What is not in it is an error that changes nothing, and the diagram
in ``runtime/DESIGN.md`` is printed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from runtime.errors import IllegalTransition


class ReleaseState(StrEnum):
    """Each comment says what has just become true."""

    PENDING = "pending"  # the set is parsed and numbered; nothing is held
    LOADING = "loading"  # its missing engines are being created
    WARMING = "warming"  # every replica of every engine runs; the set's samples run on each
    VERIFYING = "verifying"  # everything is warm; gateways resolve and ping its engines
    STANDBY = "standby"  # resident, warm and idle; it can be promoted in one move
    LIVE = "live"  # new requests go to it
    DRAINING = "draining"  # no new leases; the open ones end where they began
    FAILED = "failed"  # it cannot become live; the reason is kept
    UNLOADING = "unloading"  # the engines that only it needs are being unloaded
    RETIRED = "retired"  # it holds nothing


class Move(StrEnum):
    """What takes a release from one state to the next."""

    LOAD = "load"
    LOADED = "loaded"
    WARMED = "warmed"
    VERIFIED = "verified"
    PROMOTE = "promote"
    DEMOTE = "demote"
    DRAINED = "drained"
    FAIL = "fail"
    UNLOAD = "unload"
    UNLOADED = "unloaded"


_S, _M = ReleaseState, Move

TRANSITIONS: Mapping[tuple[ReleaseState, Move], ReleaseState] = MappingProxyType(
    {
        (_S.PENDING, _M.LOAD): _S.LOADING,
        (_S.LOADING, _M.LOADED): _S.WARMING,
        (_S.WARMING, _M.WARMED): _S.VERIFYING,
        (_S.VERIFYING, _M.VERIFIED): _S.STANDBY,
        (_S.STANDBY, _M.PROMOTE): _S.LIVE,
        (_S.LIVE, _M.DEMOTE): _S.DRAINING,
        (_S.DRAINING, _M.DRAINED): _S.STANDBY,
        (_S.DRAINING, _M.PROMOTE): _S.LIVE,
        (_S.PENDING, _M.FAIL): _S.FAILED,
        (_S.LOADING, _M.FAIL): _S.FAILED,
        (_S.WARMING, _M.FAIL): _S.FAILED,
        (_S.VERIFYING, _M.FAIL): _S.FAILED,
        (_S.STANDBY, _M.FAIL): _S.FAILED,
        (_S.STANDBY, _M.UNLOAD): _S.UNLOADING,
        (_S.FAILED, _M.UNLOAD): _S.UNLOADING,
        (_S.UNLOADING, _M.UNLOADED): _S.RETIRED,
    }
)

CANDIDATE = frozenset({_S.PENDING, _S.LOADING, _S.WARMING, _S.VERIFYING})
"""States of a release that is being brought up."""

ROUTABLE = frozenset({_S.VERIFYING, _S.STANDBY, _S.LIVE, _S.DRAINING})
"""States in which gateways hold a release's handles."""

HOLDING = CANDIDATE | ROUTABLE
"""States in which a release keeps its engines loaded."""

SERVING = frozenset({_S.LIVE, _S.DRAINING})
"""States in which a release may have requests under way, and what they come to is judged."""

WARM = frozenset({_S.STANDBY, _S.DRAINING})
"""States of a release that is warm, and can be promoted again without a load."""

TAKING_OVER = (CANDIDATE - {_S.PENDING}) | WARM
"""States of a release that is on its way to be live, or can be."""

OVER = frozenset({_S.FAILED, _S.UNLOADING, _S.RETIRED})
"""States from which a release does not become live again."""


def after(state: ReleaseState, move: Move) -> ReleaseState:
    """Return the state that ``move`` leads to.

    Raises:
        IllegalTransition: the table has no such move from ``state``.

    """
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        known = sorted(known for known_state, known in TRANSITIONS if known_state == state)
        raise IllegalTransition(
            f"a release that is {state} cannot {move}; from there it can: {', '.join(known) or 'nothing'}"
        ) from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {ReleaseState.PENDING}"]
    lines += [f"    {state} --> {target}: {move}" for (state, move), target in TRANSITIONS.items()]
    lines.append(f"    {ReleaseState.RETIRED} --> [*]")
    return "\n".join(lines)
