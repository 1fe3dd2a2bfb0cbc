"""Interlock's log in a Serve replica."""

import logging

import pytest

from runtime.serve.serve_log import log_with_serve


@pytest.fixture
def serve():
    """Serve's logger as Serve sets it up in a replica, and what it writes."""
    logger, ours = logging.getLogger("ray.serve"), logging.getLogger("runtime")
    before = [(one, list(one.handlers), one.level, one.propagate) for one in (logger, ours)]
    written = []
    file = logging.Handler()
    file.emit = lambda record: written.append(record.getMessage())
    logger.handlers, logger.propagate = [file], False
    logger.setLevel(logging.INFO)
    yield logger, written
    for one, handlers, level, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


# What Interlock logs is written once where Serve writes, from the level on that Serve is set to.
def test_log_goes_where_serve_writes(serve):
    logger, written = serve
    log_with_serve()
    log_with_serve()
    ours = logging.getLogger("runtime.control.effects")
    ours.info("engine 1a2b3c: compiling")
    ours.debug("a detail")
    logger.setLevel(logging.WARNING)
    ours.info("engine 1a2b3c: running")
    ours.warning("engine 1a2b3c is not idle")
    assert written == ["engine 1a2b3c: compiling", "engine 1a2b3c is not idle"]


# Serve may change its handlers while the replica runs: the log goes where Serve writes then.
def test_log_follows_serve(serve):
    logger, written = serve
    log_with_serve()
    moved = []
    other = logging.Handler()
    other.emit = lambda record: moved.append(record.getMessage())
    logger.handlers = [other]
    logging.getLogger("runtime").info("here")
    assert (written, moved) == ([], ["here"])
