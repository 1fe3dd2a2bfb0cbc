"""A request's way: lease, chain, hops, meter.

What belongs here: routing and leases, admission, walking a chain over engine clients, counting.
What may not: HTTP and its errors (``api``), Ray (``serve``), how a release came to be (``control``).
"""
