"""What people are told of the state: status, progress, what is waited for, the audit log.

Nothing here decides: it only puts into words.
"""
