"""What was generated, what it cost, how long it took, and how it ended: of a hop, of a request, of a process.

Values and sums only. Whether somebody may spend is ``core.budgets``'; what is ill, ``core.health``'s.
"""
