"""Engines as everybody else sees them.

What belongs here: the protocol of an engine, the scripted fake that everything is tested with, and
the contract that real and fake ones are held to. What may not: Ray, vLLM, torch, HTTP.
"""
