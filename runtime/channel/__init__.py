"""Calls past Serve's handles, over connections of our own: protocol, frames, client and server.

Knows no Ray and no engine: whoever opens a server passes in what answers its calls.
"""
