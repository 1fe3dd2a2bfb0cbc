"""A swap's way: the single-writer loop and the effects that it starts.

What belongs here: the controller, the effects behind ports, the journal's async face, the hub that
gateways poll. What may not: decisions (``core.swap``), Ray (``serve.cluster``), a request's way.
"""
