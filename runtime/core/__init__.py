"""Pure values and decisions.

What belongs here: model sets, the fold of a swap, what to do next, a chain's walk, requests, usage,
budgets, health, views for people. What may not: I/O, clocks, randomness, frameworks, anything that waits.
"""
