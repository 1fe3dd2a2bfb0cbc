"""Making the calls of a walk: the driver, one call's hop, what a request spends, its deadline.

What requests and warm-ups share. What is to be called next is ``core.walk``'s; whether a request gets in,
``traffic``'s.
"""
