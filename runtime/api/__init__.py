"""HTTP: OpenAI-shaped routes, admin routes, server-sent events, errors to status.

What belongs here: parsing and bounding bodies, the wire form of answers and errors, who may call
what. What may not: Ray, how a chain is walked, how a swap is decided.
"""
