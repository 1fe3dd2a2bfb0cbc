"""Statements that run for every request: SQLAlchemy writes them once, the database's driver runs them.

SQLAlchemy takes several times longer to execute a statement than SQLite does. What it would do besides is
not needed here: all values are whole numbers, floats and text, which drivers take and give as they are, and
``store.sql.database`` knows the drivers' errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor

_MOST = 128
"""Items of one statement: databases bound how many parameters it may have, and how deep it may nest."""


class Direct(NamedTuple):
    """The driver's own way into a transaction."""

    cursor: DBAPICursor
    dialect: Dialect


class Prepared:
    """A statement whose parameters have names."""

    def __init__(self, statement: sa.Select[Any] | sa.UpdateBase) -> None:
        self._statement = statement
        self._compiled: dict[str, _ByName] = {}

    def each(self, direct: Direct, rows: Sequence[Mapping[str, object]]) -> None:
        """Run it once for each of ``rows``."""
        if rows:
            compiled = self._for(direct.dialect)
            direct.cursor.executemany(compiled.text, [compiled.values(row) for row in rows])

    def rows(self, direct: Direct, **parameters: object) -> list[tuple[Any, ...]]:
        """Run it once; return its rows."""
        compiled = self._for(direct.dialect)
        direct.cursor.execute(compiled.text, compiled.values(parameters))
        return list(direct.cursor.fetchall())

    def _for(self, dialect: Dialect) -> _ByName:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _ByName(self._statement, dialect)
        return compiled


class PreparedAmong:
    """A statement that returns rows, about those whose ``columns`` are among some items."""

    def __init__(
        self,
        columns: Sequence[sa.Column[Any]],
        build: Callable[[sa.ColumnElement[bool]], sa.Select[Any] | sa.UpdateBase],
    ) -> None:
        """Let ``build`` make the statement from the condition that a row is among the items."""
        self._columns = columns
        self._build = build
        self._compiled: dict[tuple[str, int], str] = {}

    def rows(self, direct: Direct, items: Sequence[tuple[object, ...]]) -> list[tuple[Any, ...]]:
        """Return the rows of ``items``, each a value for every column."""
        found: list[tuple[Any, ...]] = []
        for begin in range(0, len(items), _MOST):
            part = items[begin : begin + _MOST]
            # A power of two, the last item repeated, so that there are few different statements.
            length = 1 << (len(part) - 1).bit_length()
            padding = [part[-1]] * (length - len(part))
            values = tuple(chain.from_iterable((*part, *padding)))
            direct.cursor.execute(self._text(direct.dialect, length), values)
            found += direct.cursor.fetchall()
        return found

    def _text(self, dialect: Dialect, length: int) -> str:
        text = self._compiled.get((dialect.name, length))
        if text is None:
            statement = self._build(sa.or_(*(self._is(number) for number in range(length))))
            text = self._compiled[dialect.name, length] = str(statement.compile(dialect=_positional(dialect)))
        return text

    def _is(self, number: int) -> sa.ColumnElement[bool]:
        # Not a tuple in a list of tuples: SQLite finds no rows by these, it would read the whole table.
        return sa.and_(*(column == sa.bindparam(f"{column.name}_{number}") for column in self._columns))


class _ByName:
    """A compiled statement, and how a row's values are put into its parameters' order."""

    def __init__(self, statement: sa.Select[Any] | sa.UpdateBase, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=_positional(dialect))
        assert isinstance(compiled, sa.sql.compiler.SQLCompiler)  # noqa: S101 - tells mypy
        self.text = str(compiled)
        self._constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        self._names = compiled.positiontup or ()

    def values(self, row: Mapping[str, object]) -> tuple[object, ...]:
        known = {**self._constants, **row}
        return tuple([known[name] for name in self._names])


def _positional(dialect: Dialect) -> Dialect:
    """Return the dialect with parameters by their positions, which all drivers know in some form."""
    return dialect if dialect.positional else type(dialect)(paramstyle="format")  # type: ignore[call-arg]
