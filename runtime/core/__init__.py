"""Pure values and decisions.

What belongs here: model sets, digests, the routing table, the fold of a swap, what to do next, a
chain's walk, usage. What may not: I/O, clocks, randomness, frameworks, anything that waits.
"""
