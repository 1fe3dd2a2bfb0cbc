"""Health from the facts: every sentence says what is wrong, where, and what to do."""

from __future__ import annotations

from runtime.core.health.agent import agent
from runtime.core.health.infrastructure import infrastructure
from runtime.core.health.orchestration import orchestration
from runtime.core.health.report import Facts, Health
from runtime.core.metering.recent import summed


def examine(facts: Facts) -> Health:
    """Return the three tiers."""
    recent = summed(activity.recent for activity in facts.activity.values())
    return Health(infrastructure(facts), orchestration(facts, recent), agent(facts, recent))
