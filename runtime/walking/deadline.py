"""A request's deadline: one for all its hops, from its arrival."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.clock import Clock
from runtime.engines.time_limit import TimeLimit
from runtime.errors import DeadlineExceeded


class Deadline:
    """Ends ``seconds`` after the clock's stamp ``since``."""

    def __init__(self, clock: Clock, seconds: float, since: float) -> None:
        self._clock = clock
        self.seconds = seconds
        self._since = since

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return self.seconds - (self._clock.now() - self._since)

    @contextmanager
    def within(self, step: str) -> Iterator[TimeLimit]:
        """Give the limit of each wait for ``step``. Raises DeadlineExceeded for what it ends."""
        limit = TimeLimit(self.left)
        try:
            yield limit
        except TimeoutError as error:
            message = f"the chain's deadline of {self.seconds:g} s passed in step {step!r}"
            raise DeadlineExceeded(message) from error
        finally:
            limit.close()
