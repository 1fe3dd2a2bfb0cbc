"""The kinds of steps, a module each: what an operator declares, and what a walk does with it.

A kind is a class: its declaration, the calls that it wants made, what it makes of their results, and made-up
results for those who walk without engines. A new one is a module here, and a key of ``core.walk.chain.Step``.
"""
