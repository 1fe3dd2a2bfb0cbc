"""The metrics of all processes, in one row: counts must outlast the manager.

It is written before it is shown, so that a manager that starts can show no less. Writers are fenced by
the journal's epoch.
"""

from __future__ import annotations

import logging
import zlib

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runtime.core.metering.series import Sums
from runtime.errors import Fenced
from runtime.store.sql.database import insert_into, reading, writing
from runtime.store.tables import METRICS

_log = logging.getLogger(__name__)

_LEVEL = 1
"""Of zlib: names repeat so much that more effort gains little."""


class MetricsStore:
    """The row. Calls block: make them from a thread. Each may raise StoreUnavailable."""

    def __init__(self, engine: Engine, epoch: int) -> None:
        self._engine = engine
        self._epoch = epoch
        new = insert_into(engine, METRICS)
        mine = {"epoch": new.excluded.epoch, "counts": new.excluded.counts}
        older = METRICS.c.epoch <= epoch
        put = new.on_conflict_do_update(index_elements=["id"], set_=mine, where=older)
        self._put = put.returning(METRICS.c.epoch)  # no row, if nothing was written

    def load(self) -> Sums:
        """Return what was saved last; counts of an unknown format begin at zero."""
        with reading(self._engine) as connection:
            kept = connection.execute(sa.select(METRICS.c.counts)).scalar_one_or_none()
        if kept is None:
            return Sums()
        try:
            return Sums.of_json(orjson.loads(zlib.decompress(kept)))
        except (ValueError, zlib.error) as error:
            _log.warning("metrics begin at zero: those in the store cannot be read: %s", error)
            return Sums()

    def save(self, sums: Sums) -> None:
        """Keep ``sums``.

        Raises:
            Fenced: a newer manager has written already.

        """
        serialized = orjson.dumps(sums.as_json(), option=orjson.OPT_NON_STR_KEYS)
        row = {"id": 1, "epoch": self._epoch, "counts": zlib.compress(serialized, _LEVEL)}
        with writing(self._engine) as connection:
            if connection.execute(self._put, row).first() is None:
                raise Fenced(f"epoch {self._epoch} is over: another manager writes the metrics now")
