"""What an operator writes, as a value: documents with lines, closed specs, units, the nearest right name.

Nothing here knows what a model set holds; whatever is declared in a file is read with these.
"""
