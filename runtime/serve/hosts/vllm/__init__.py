"""vLLM in its replica: the requests that reach it, its refusals, and the count of its output."""
