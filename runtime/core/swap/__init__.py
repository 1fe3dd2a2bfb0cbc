"""Releases and their swap: the transition table, events folded into the state, the policy that decides.

Pure: work that is due is returned as values, and ``control`` acts.
"""
