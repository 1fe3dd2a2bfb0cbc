"""Callers and requests: bounded JSON, members by an allow-list, messages in one normal form.

Nothing here knows chains: what one of them takes from clients is ``core.walk``'s.
"""
