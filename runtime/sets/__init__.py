"""Reading model sets from files: YAML with its lines, the prompts and models that it names.

What a set may say is ``core.model_set``'s; here is all that touches the disk for it.
"""
