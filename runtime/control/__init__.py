"""The control of swaps: the single-writer loop and the effects that it starts.

What belongs here: the controller, the effects behind ports, warm-ups, the collector, the hub that gateways
poll, the feed of events, health's facts. What may not: decisions (``core.swap``), Ray (``serve.cluster``),
the path of requests.
"""
