"""What is spent: the ledger with its sums, caps, counters and reservations."""
