"""The only room that knows Ray.

What belongs here: the Serve application, its two deployments, engine applications and the replicas
that host engines, and the adapters that make Ray look like the ports of the other rooms. What may
not: decisions, and anything that could be tested without Ray.
"""
