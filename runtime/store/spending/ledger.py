"""The ledger: one row per hop, for as long as rows are kept, and sums of them for good.

A row may be written more than once and come from two sources: the gateway that made the call knows how it
ended and how long it took, the engine knows exactly what it has spent. Rows of one hop are merged, and
the merge gives the same row in whatever order and however often they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runtime.clock import Clock, SystemClock
from runtime.core.budgets.budget import Amount, Crossing
from runtime.core.metering.cost import PICO_PER_NANO, cost_of
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import NOTHING, Usage
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.counters import MissingCounters
from runtime.store.spending.ledger_sums import COUNTS, LateRows
from runtime.store.spending.usage import total_of, usage_by
from runtime.store.sql.database import Turn, insert_into, reading, take_turns, writing_directly
from runtime.store.sql.patience import REPORT_SECONDS
from runtime.store.sql.prepared import Direct, Prepared, PreparedAmong
from runtime.store.tables import LEDGER

_KNOWN = PreparedAmong(
    [LEDGER.c.hop],
    lambda among: (
        sa.select(LEDGER.c.hop, LEDGER.c.prompt, LEDGER.c.completion, LEDGER.c.cached)
        .where(among)
        .with_for_update()
    ),
)


class Ledger:
    """Reads and writes the ledger. Calls block: make them from a thread. All raise StoreUnavailable."""

    def __init__(
        self,
        engine: Engine,
        budgets: Budgets | None = None,
        *,
        collects: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Write to ``engine``; ``collects`` if this one writes rows of hops that gateways write, too."""
        self._collects = collects
        self._clock = clock or SystemClock()
        self._late = LateRows(engine)
        self._engine = engine
        self._budgets = budgets
        new = insert_into(engine, LEDGER)
        merge = new.on_conflict_do_update(index_elements=["hop"], set_=_merged(new.excluded))
        self._merge = Prepared(merge)

    def write(self, rows: Iterable[LedgerRow], ended: Sequence[str] = ()) -> int:
        """Write ``rows``, charge budgets with what they add, and release what ``ended`` calls reserved.

        All of it is one transaction, and counts once this returns. Returns how many rows were new.
        """
        # In one order always: of two processes that write the same rows, each would wait for the other.
        ordered = sorted(rows, key=lambda row: row.tag.hop)
        if self._budgets is not None:
            self._budgets.caps()  # read anew if they are old, before a transaction makes others wait
        while True:
            try:
                return self._try_to_write(ordered, ended)
            except MissingCounters as missing:
                assert self._budgets is not None  # noqa: S101 - only these have counters
                self._budgets.make(missing.counters)

    def _try_to_write(self, rows: Sequence[LedgerRow], ended: Sequence[str]) -> int:
        crossed: list[Crossing] = []
        now = self._clock.wall() + (self._budgets.skew if self._budgets is not None else 0.0)
        with writing_directly(self._engine) as direct:
            # Reading locks no row that is not there yet: two writers of one new hop would both charge for it.
            take_turns(direct, Turn.LEDGER, alone=self._collects)
            rows = self._late.without_deleted(direct, rows, now)
            known = _known(direct, rows)
            new = [row for row in rows if _is_news(row, known)]
            self._merge.each(direct, [row.as_row() for row in new])
            self._late.mark(direct, new, now)
            if self._budgets is not None:
                crossed = self._budgets.settle(direct, _added(new, known), ended)
        if self._budgets is not None:
            self._budgets.warn(crossed)
        return len(new)

    def sweep(self, lag: float) -> int:
        """Release what is reserved and expired ``lag`` seconds ago; return how many reservations it was."""
        if self._budgets is None:
            return 0
        return self._budgets.sweep(self._budgets.now(), lag)

    def total(self) -> Usage:
        """Return every token that the ledger knows of."""
        with reading(self._engine, REPORT_SECONDS) as connection:
            return total_of(connection)

    def usage(self, by: str, since: float = 0.0) -> list[dict[str, Any]]:
        """Return requests, hops, tokens and cost by one of ``GROUPS``; sessions with whose tenants' they are.

        The cost is text, in units of the currency that the model sets' prices are in. ``since`` is in
        seconds since the Unix epoch, and is about when requests began.
        """
        with reading(self._engine, REPORT_SECONDS) as connection:
            return usage_by(connection, by, since)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _known(direct: Direct, rows: Sequence[LedgerRow]) -> dict[str, Usage]:
    """Return the tokens of those of ``rows`` that are in the ledger already, but for reasoning ones."""
    found = _KNOWN.rows(direct, [(row.tag.hop,) for row in rows])
    return {hop: Usage(*counts) for hop, *counts in found}


def _is_news(row: LedgerRow, known: Mapping[str, Usage]) -> bool:
    """Say whether a row has anything that is not in the ledger yet."""
    before = known.get(row.tag.hop)
    return before is None or before[:3] != row.usage[:3] or row.ttft_ms is not None


def _added(rows: Iterable[LedgerRow], known: Mapping[str, Usage]) -> Iterator[tuple[HopTag, Amount]]:
    """Yield what each row adds to what is known of its hop. A hop that is written twice adds once."""
    counted = dict(known)
    for row in rows:
        before = counted.get(row.tag.hop, NOTHING)
        after = Usage(*map(max, before[:3], row.usage[:3]))
        counted[row.tag.hop] = after
        price = row.tag.price
        yield row.tag, Amount(after.total - before.total, cost_of(price, after) - cost_of(price, before))


def _merged(new: Any) -> dict[str, Any]:
    """Return what a row that is written again becomes: the greater counts, and any times measured."""
    old = LEDGER.c
    merged: dict[str, Any] = {name: _greater(old[name], new[name]) for name in COUNTS}
    merged["cost"] = _cost(merged["prompt"], merged["cached"], merged["completion"])
    orphaned = old.outcome == Outcome.ORPHANED.value
    merged["outcome"] = sa.case((orphaned, new.outcome), else_=old.outcome)
    merged["duration_ms"] = sa.case((old.ttft_ms.is_(None), new.duration_ms), else_=old.duration_ms)
    merged["queue_ms"] = sa.func.coalesce(old.queue_ms, new.queue_ms)
    merged["ttft_ms"] = sa.func.coalesce(old.ttft_ms, new.ttft_ms)
    return merged


def _cost(prompt: Any, cached: Any, completion: Any) -> Any:
    """Return ``core.metering.cost.cost_of`` of a row's price and these counts, as SQL."""
    old = LEDGER.c
    pico = old.prompt_price * (prompt - cached) + old.cached_price * cached
    return (pico + old.completion_price * completion + (PICO_PER_NANO - 1)) // PICO_PER_NANO


def _greater(one: Any, other: Any) -> Any:
    return sa.case((one >= other, one), else_=other)
