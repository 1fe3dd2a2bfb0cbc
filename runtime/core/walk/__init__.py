"""Chains, and the walk through one without I/O: which call comes next, given what the earlier ones returned.

Prompts are rendered here, in their sandbox. Who makes the calls is above: requests, warm-ups, bounds.
"""
