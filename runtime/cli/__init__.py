"""The ``interlock`` command: a thin client of the admin API, and the fetching of models.

What belongs here: arguments, tables, progress, exit codes. What may not: decisions, and Ray.
"""
