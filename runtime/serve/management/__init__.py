"""Asking the manager: where it is, the calls that it answers, both ends of them."""
