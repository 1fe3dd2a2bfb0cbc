"""Caps and their counters: whether a request fits, what it reserves, when a budget runs out.

Decisions on counters that somebody holds; where counters are is ``store.spending``'s.
"""
