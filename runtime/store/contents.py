"""Model sets as the journal keeps them: each once, by the digest of its text, however often it is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runtime.core.model_set.digest import canonical
from runtime.store.tables import CONTENTS

_KEPT_AS = "stored"
"""The only member of a reference to a model set. No set has it."""


class Contents:
    """Puts model sets into a transaction's database, and notes which."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.digests: set[str] = set()

    def put_away(self, content: Any) -> dict[str, str]:
        """Keep a set's JSON; return the reference that stands for it."""
        text = canonical(content)
        digest = hashlib.sha256(text).hexdigest()
        known = sa.select(CONTENTS.c.digest).where(CONTENTS.c.digest == digest)
        # One manager writes at a time: it holds the epoch's row meanwhile.
        if self._connection.execute(known).first() is None:
            row = {"digest": digest, "content": text.decode()}
            self._connection.execute(sa.insert(CONTENTS).values(row))
        self.digests.add(digest)
        return {_KEPT_AS: digest}

    def forget_others(self) -> None:
        """Delete what has not been put away here."""
        self._connection.execute(sa.delete(CONTENTS).where(CONTENTS.c.digest.not_in(sorted(self.digests))))


def fetching(connection: Connection) -> Callable[[Any], Any]:
    """Return a function that resolves references to sets' JSON; what is no reference it returns as it is."""
    kept = {row.digest: row.content for row in connection.execute(sa.select(CONTENTS))}

    def fetch(stored: Any) -> Any:
        if not isinstance(stored, dict) or stored.keys() != {_KEPT_AS}:
            return stored
        try:
            return json.loads(kept[stored[_KEPT_AS]])
        except KeyError:
            raise ValueError(f"the model set {stored[_KEPT_AS]!r} is not in the store") from None

    return fetch
