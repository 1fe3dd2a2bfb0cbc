"""The database as such: opening and upgrading it, how long a wait for it may take, prepared statements.

The only place that distinguishes SQLite from PostgreSQL. Knows no table but its own version's.
"""
