"""Model sets that no file holds."""

from __future__ import annotations

from typing import Any

from runtime.core.model_set.digest import Content
from runtime.core.model_set.model_set import parse


def content_of(declared: Any) -> Content:
    """Return the content of a declared model set; prompts stand in it, not in files. Raises ModelSetError."""
    return Content.of(parse(declared, "set.yaml", lambda path: path), {})
