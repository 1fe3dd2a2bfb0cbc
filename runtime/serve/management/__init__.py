"""Calling the manager: its address, the calls that it answers, and both ends of them."""
