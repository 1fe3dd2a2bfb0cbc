"""Which Interlock it is: the id that its store was given once, and what its names are made of.

Several Interlocks may share a Ray cluster. What one of them makes there carries its id, and it counts and
deletes nothing else: neither another one's engines nor an application that happens to be called alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from runtime.core.model_set.digest import SHORT

_PREFIX = "engine-"

_ENGINE = re.compile(rf"{_PREFIX}(?:(?P<id>[0-9a-f]{{8}})-)?(?P<engine>[0-9a-f]{{{SHORT}}})")


@dataclass(frozen=True)
class Installation:
    """One Interlock: whatever works on its store."""

    id: str
    """Eight hexadecimal digits, kept in the store."""
    inherits: bool = False
    """Its store is older than the id: engines that were loaded then are in applications without it."""

    def application(self, engine: str) -> str:
        """Return the name of an engine's application."""
        return f"{_PREFIX}{self.id}-{engine[:SHORT]}"

    def inherited_application(self, engine: str) -> str:
        """Return the name that an engine's application had before names carried the id."""
        return f"{_PREFIX}{engine[:SHORT]}"

    def engines(self, applications: Iterable[str]) -> frozenset[str]:
        """Return the shortened digests of the engines that are in its own among ``applications``."""
        named = ((name, engine_in_name(name)) for name in applications)
        return frozenset(engine for name, engine in named if engine and name == self.application(engine))

    def inherited(self, applications: Iterable[str], known: Collection[str]) -> frozenset[str]:
        """Return the shortened digests of engines in applications without an id that are its own.

        Those are engines that its journal knows; ``known`` are their digests. What else is called so is
        somebody else's.
        """
        if not self.inherits:
            return frozenset()
        named = frozenset(applications)
        return frozenset(
            engine[:SHORT]
            for engine in known
            if self.inherited_application(engine) in named and self.application(engine) not in named
        )


def engine_in_name(application: str) -> str:
    """Return the shortened digest in the name of an engine's application, whosever it is; else nothing."""
    found = _ENGINE.fullmatch(application)
    return found["engine"] if found else ""


def installation_in_name(application: str) -> str:
    """Return the id in the name of an engine's application; nothing if it has none."""
    found = _ENGINE.fullmatch(application)
    return (found["id"] or "") if found else ""
