"""The state for people: status, progress, what is waited for, the audit log.

Nothing here decides; it only describes.
"""
