"""Making the calls of a walk: the driver, one call's hop, what a request spends, its deadline.

Warm-ups share the driver alone; the rest is a request's. What is to be called next is ``core.walk``'s;
whether a request gets in, ``traffic``'s.
"""
