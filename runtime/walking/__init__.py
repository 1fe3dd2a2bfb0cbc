"""Making the calls of a walk: the driver, one call's hop, what a request spends, its deadline.

Warm-ups share the driver alone; the rest is a request's. ``core.walk`` decides what is called next,
``traffic`` whether a request is admitted.
"""
