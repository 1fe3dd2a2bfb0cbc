"""The support agent as a plain Serve application, written by hand: what Interlock's swap is held against.

A router, a writer and an ingress with handles to both, as somebody writes it who knows Serve: replacements
start before old replicas stop, which have time to end their streams. Each replica knows its version, and each
answer says which versions took part. It streams only.
"""
