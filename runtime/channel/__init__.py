"""Calls past Serve's handles, over connections of our own: what is said, its frames, client and server.

Knows no Ray and no engine: whoever listens brings the calls that it answers.
"""
