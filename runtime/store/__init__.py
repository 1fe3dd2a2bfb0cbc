"""What is kept on disk: the journal, keys, fetched models, model set files.

What belongs here: tables and repositories (SQLAlchemy Core), the model cache, reading model sets.
What may not: decisions about swaps or requests, HTTP, Ray.
"""
