"""What to do about a state: pure, stateless, from a snapshot. The controller calls these three.

``decide`` returns at most one decision, which the controller writes to the journal and folds before
it calls again. ``due`` returns the effects that should be running now: the controller starts those
that are not and cancels those that are no longer due, so a restart needs no special case.
``routing_table`` returns what gateways are to route by.
"""

from runtime.core.swap.policy.decisions import decide
from runtime.core.swap.policy.due_effects import due
from runtime.core.swap.policy.table import routing_table

__all__ = ["decide", "due", "routing_table"]
