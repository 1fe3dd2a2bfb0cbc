"""Bringing models to this machine: the catalogue, fetching, converting, digests. Knows no model set."""
