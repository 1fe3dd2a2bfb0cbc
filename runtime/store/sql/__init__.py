"""The database as such: opening and upgrading it, how long it is waited for, statements that are prepared.

The one place that tells SQLite from PostgreSQL. Knows no table but its own version's.
"""
