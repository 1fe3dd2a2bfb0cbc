"""Interlock's log in a Serve replica: where Serve writes the replica's own."""

from __future__ import annotations

import logging

_SERVE = "ray.serve"


class _HandingOver(logging.Handler):
    """Hands records to Serve's logger, whatever handlers and form it has by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Let Serve write a record, if its level is one that Serve writes."""
        serve = logging.getLogger(_SERVE)
        if serve.isEnabledFor(record.levelno):
            serve.handle(record)


def log_with_serve() -> None:
    """Write what this process of Interlock logs into its replica's log.

    Without it nothing less than a warning would be seen: Serve sets up no logger but its own.
    """
    logger = logging.getLogger("runtime")
    if not any(isinstance(handler, _HandingOver) for handler in logger.handlers):
        logger.setLevel(logging.INFO)
        logger.addHandler(_HandingOver())
