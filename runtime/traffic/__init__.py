"""A request's way, from its lease to its rows in the ledger.

What belongs here: routing and leases, admission, the meter, following the manager.
What may not: HTTP and its errors (``api``), Ray (``serve``), how a release came to be (``control``).
"""
