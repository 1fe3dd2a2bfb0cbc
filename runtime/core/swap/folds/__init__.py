"""The fold of each group of events. ``core.swap.fold`` puts them together, and numbers what is durable."""
