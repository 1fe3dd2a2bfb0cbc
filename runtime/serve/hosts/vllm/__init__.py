"""vLLM in its replica: what of a request reaches it, what it says, what it has generated."""
