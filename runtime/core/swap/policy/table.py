"""What gateways are to route by: the table that is published."""

from __future__ import annotations

from runtime.core.swap.policy.engines import resident
from runtime.core.swap.policy.promotion import answers
from runtime.core.swap.release import ROUTABLE
from runtime.core.swap.routes import RoutedRelease, RoutingTable
from runtime.core.swap.state import ControlState


def routing_table(state: ControlState) -> RoutingTable:
    """Return what to publish: every warm, resident release, and the live one if it is among them."""
    routed = {
        release.number: RoutedRelease(
            number=release.number,
            model_set=release.content.digest,
            name=release.content.model_set.name,
            chains=release.content.model_set.chains,
            engines=release.content.engines,
            prices=release.content.model_set.prices,
            contexts=release.content.model_set.contexts,
        )
        for release in state.holding
        if release.state in ROUTABLE and release.warm and resident(state, release)
    }
    live = state.live
    return RoutingTable(
        version=state.routed.revision,
        live=live.number if live is not None and live.number in routed else None,
        paused=state.paused or int(live is not None and not answers(state, live)),
        releases=routed,
    )
