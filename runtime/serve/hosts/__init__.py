"""An engine in its replica: what Serve runs of it, for each kind of engine.

The only modules that import vLLM or torch.
"""
