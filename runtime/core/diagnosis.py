"""What is wrong, told from the facts: every sentence says what, where, and what to do."""

from __future__ import annotations

from runtime.core.agent import agent
from runtime.core.health import Facts, Health
from runtime.core.infrastructure import infrastructure
from runtime.core.orchestration import orchestration
from runtime.core.recent import summed


def examine(facts: Facts) -> Health:
    """Return the three tiers."""
    recent = summed(report.recent for report in facts.state.gateways.values())
    return Health(infrastructure(facts), orchestration(facts, recent), agent(facts, recent))
