"""Interlock: a GPU inference runtime for AI agents, whose models are swapped as one set."""

from runtime.earlier_names import know_earlier_names

know_earlier_names()
