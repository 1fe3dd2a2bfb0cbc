"""Prepared statements: what SQLAlchemy writes and the driver runs, on any number of items."""

import pytest
import sqlalchemy as sa

from runtime.core.budgets.budget import Counter, CounterId, settled
from runtime.errors import StoreUnavailable
from runtime.store.sql import prepared
from runtime.store.sql.database import open_store, reading, writing_directly
from runtime.store.sql.prepared import Prepared, PreparedAmong
from runtime.store.tables import COUNTERS
from tests.unit.store.test_database import end_connection

ID = (COUNTERS.c.cap, COUNTERS.c.subject, COUNTERS.c.window)
NEW = Prepared(sa.insert(COUNTERS))
PID = Prepared(sa.select(sa.func.pg_backend_pid()))
READ = PreparedAmong(ID, sa.select(COUNTERS).where)
DELETE = PreparedAmong([COUNTERS.c.cap], lambda among: sa.delete(COUNTERS).where(among).returning(ID[0]))


def rows(count):
    return [
        {"cap": n, "subject": f"s{n}", "window": 2**40, "spent": n, "reserved": 0, "warned": 3, "used": 0.5}
        for n in range(count)
    ]


# However many items there are, each is found once, and what is not there is not; nothing else is touched.
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 128, 129, 300])
def test_any_number_of_items(engine, count):
    with writing_directly(engine) as direct:
        NEW.each(direct, rows(310))
    wanted = [(n, f"s{n}", 2**40) for n in range(count)]
    with writing_directly(engine) as direct:
        found = READ.rows(direct, [*wanted, (1, "s2", 2**40)])
        gone = DELETE.rows(direct, [item[:1] for item in wanted])
    assert sorted(found) == [(*item, item[0], 0, 3, 0.5) for item in wanted]
    assert sorted(gone) == [item[:1] for item in wanted]
    with reading(engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(COUNTERS)).scalar_one()
    assert left == 310 - count


# Lists of all lengths make few different statements, so that databases know them again.
def test_few_statements(engine):
    read = PreparedAmong(ID, sa.select(COUNTERS).where)
    with writing_directly(engine) as direct:
        for count in range(300):
            read.rows(direct, [(n, "s", 0) for n in range(count)])
    assert len(read._compiled) == prepared._MOST.bit_length()


# What an error leaves half-done is undone, and the connection is as good as before.
def test_undone_after_an_error(engine):
    with pytest.raises(ZeroDivisionError):
        change_and_fail(engine)
    with writing_directly(engine) as direct:
        assert READ.rows(direct, [(0, "s0", 2**40)]) == []
        NEW.each(direct, rows(2))


def change_and_fail(engine):
    with writing_directly(engine) as direct:
        NEW.each(direct, rows(2))
        raise ZeroDivisionError


# A server that goes away in mid-transaction is nobody's fault, and the next transaction finds it again.
@pytest.mark.store
def test_no_answer_is_unavailable(postgresql):
    url = postgresql()
    engine, other = open_store(url), open_store(url)
    with pytest.raises(StoreUnavailable, match="does not answer"), writing_directly(engine) as direct:
        lose(direct, other)
    with writing_directly(engine) as direct:
        assert len(PID.rows(direct)) == 1
    for opened in (engine, other):
        opened.dispose()


def lose(direct, other):
    """Let the server end the connection, then use it."""
    ((number,),) = PID.rows(direct)
    end_connection(number, other)
    PID.rows(direct)


# What is settled is spent, and no longer reserved; a counter that neither names stays as it is.
def test_settled():
    a, b, c = (CounterId(1, subject, 0) for subject in "abc")
    stands = {a: Counter(10, 50, 1), b: Counter(1, 5), c: Counter(7, 7)}
    after = settled(stands, {a: 30}, {a: 50, b: 2})
    assert after == {a: Counter(40, 0, 1), b: Counter(1, 3), c: Counter(7, 7)}
