"""What is wrong, and what to do about it, from a snapshot of facts that others have gathered."""
