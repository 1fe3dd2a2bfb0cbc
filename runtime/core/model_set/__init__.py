"""The model set as one frozen, digested value: engines, chains, limits, and what follows from it alone.

What engines need, what a warm-up runs, how long stops wait. Nothing here knows releases or files.
"""
