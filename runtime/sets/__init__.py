"""Reading model sets from files: YAML with its lines, the prompts and models that it names.

``core.model_set`` decides what a set may contain; everything that touches the disk for it is here.
"""
