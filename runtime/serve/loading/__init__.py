"""How an engine comes up: its phases, from vLLM's log to a board that the manager reads."""
