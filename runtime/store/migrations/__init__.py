"""The steps by which a database comes to have the store's tables, in ``versions``, for alembic.

A step that has been released is never changed. After a new one, set ``HEAD`` in
``runtime.store.sql.version``; a test compares what the steps make with what ``runtime.store.tables`` says.
"""
