"""Releases and their swap: the transition table, events folded into the state, the policy that decides.

No effects: what is due is told as values, and ``control`` acts.
"""
