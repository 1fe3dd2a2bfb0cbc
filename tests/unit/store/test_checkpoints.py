"""Checkpoints: the log of SQLite stays short without a transaction that waits for it."""

import threading

import sqlalchemy as sa

from runtime.store.sql import checkpoints
from runtime.store.sql.database import open_store, reading, writing


def raise_epoch(engine):
    with writing(engine) as connection:
        connection.execute(sa.text("update epoch set epoch = epoch + 1"))


def wait_for_checkpoints():
    for thread in threading.enumerate():
        if thread.name == checkpoints.THREAD:
            thread.join()


# After so many transactions all of the log is copied into the file and it begins anew: it does not grow.
def test_the_log_stays_short(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "AFTER", 20)
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db", survives_power_cut=False)
    sizes = set()
    for _ in range(10):
        for _ in range(20):
            raise_epoch(engine)
        wait_for_checkpoints()
        sizes.add((tmp_path / "interlock.db-wal").stat().st_size)
    with reading(engine) as connection:
        assert connection.execute(sa.text("select epoch from epoch")).scalar_one() == 200
    engine.dispose()
    assert len(sizes) == 1


# A checkpoint that cannot be made is told of, and the next one is tried all the same.
def test_a_checkpoint_that_fails(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "AFTER", 1)
    tried = checkpoints.Checkpoints(f"{tmp_path}/no/such.db")
    for times in (1, 2):
        tried.count()
        wait_for_checkpoints()
        assert caplog.text.count("no checkpoint of the store") == times


# A commit makes a checkpoint itself only when the log is far longer than those in between leave it.
def test_commits_leave_the_log_alone(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db", survives_power_cut=False)
    with reading(engine) as connection:
        pages = connection.execute(sa.text("pragma wal_autocheckpoint")).scalar_one()
    engine.dispose()
    assert pages == checkpoints.AT_LATEST


# A process that may start no more threads loses no transaction, no connection, and not the next checkpoint.
def test_a_thread_that_does_not_start(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "AFTER", 1)
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db", survives_power_cut=False)
    wait_for_checkpoints()  # opening it has begun one: while that runs, no other is tried

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(30):  # more than the pool has connections
            raise_epoch(engine)
    assert caplog.text.count("can't start new thread") >= 30
    caplog.clear()
    raise_epoch(engine)
    wait_for_checkpoints()
    with reading(engine) as connection:
        assert connection.execute(sa.text("select epoch from epoch")).scalar_one() == 31
    engine.dispose()
    assert not caplog.text
