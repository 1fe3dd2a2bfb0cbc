"""The row that says which manager works on this store. Calls block; each may raise StoreUnavailable."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runtime.core.swap.holder import Holder
from runtime.store.sql.database import reading, writing
from runtime.store.tables import HOLDER


class Held(NamedTuple):
    """The row: which manager, and how often it has written it."""

    text: str
    beats: int

    @property
    def holder(self) -> Holder | None:
        """The manager; None if nobody works on the store."""
        return Holder.model_validate_json(self.text) if self.text else None


class HolderRow:
    """The row, which the migration that made the table has put in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Held:
        """Return the row as it is now."""
        with reading(self._engine) as connection:
            row = connection.execute(sa.select(HOLDER.c.holder, HOLDER.c.beats)).one()
        return Held(row.holder, row.beats)

    def take(self, own: Holder, seen: Held) -> bool:
        """Put ``own`` in the place of what was ``seen``; False if the row has changed since."""
        as_seen = sa.and_(HOLDER.c.holder == seen.text, HOLDER.c.beats == seen.beats)
        return self._write(as_seen, own.model_dump_json())

    def beat(self, own: Holder) -> bool:
        """Record that ``own`` is still alive; False if another has taken over."""
        text = own.model_dump_json()
        return self._write(HOLDER.c.holder == text, text)

    def leave(self, own: Holder) -> None:
        """Record that nobody works on the store any more, unless another does already."""
        self._write(HOLDER.c.holder == own.model_dump_json(), "")

    def _write(self, where: sa.ColumnElement[bool], text: str) -> bool:
        put = sa.update(HOLDER).where(where).values(holder=text, beats=HOLDER.c.beats + 1)
        with writing(self._engine) as connection:
            return connection.execute(put).rowcount == 1
