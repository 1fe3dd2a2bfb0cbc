"""Engines as everybody else sees them.

What belongs here: the protocol of an engine, the scripted fake that everything is tested with, the contract
that real and fake ones are held to, the count of a call's tokens, its deadline. What may not: Ray, vLLM,
torch, HTTP.
"""
