"""The repositories as the event loop calls them: what blocks runs in a thread.

What belongs here: a face of each repository that something asynchronous calls, and what they share: the
one way to run a call in a thread, to make several calls one, to ask until the store answers.
What may not: SQL, and what calls mean; the ports that these faces fit are their callers'.
"""
