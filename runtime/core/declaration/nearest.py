"""The word that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_LONGEST = 128
"""Comparing costs the product of both lengths, and nobody mistypes a name into a page of text."""


def nearest(word: str, valid: Collection[str]) -> str | None:
    """Return the valid word that ``word`` was probably meant to be, or None."""
    if len(word) > _LONGEST:
        return None
    matches = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    return matches[0] if matches else None
