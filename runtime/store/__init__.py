"""What is kept in the database: journal, keys, ledger, budgets, audit log, metrics.

What belongs here: tables, migrations and repositories (SQLAlchemy Core).
What may not: decisions about swaps or requests, HTTP, Ray.
"""
