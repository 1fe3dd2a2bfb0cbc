"""Identity by content.

Same content, in another key order or another file: same digest. Another weight file, engine
argument or replica count: another digest. An engine's digest leaves out how long it may take to
load, its declared memory and its prices, which do not change what it is; prices
are part of the set's digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from runtime.core.declaration.document import MAX_DEPTH
from runtime.core.model_set.engines import EngineSpec
from runtime.core.model_set.model_set import ModelSet

SHORT = 12
"""How many hex digits of a digest are enough for names and for people."""


class Weights(BaseModel):
    """Where an engine's weights are (a folder or a hub's id) and the digest of their content."""

    model_config = ConfigDict(frozen=True)

    location: str
    digest: str
    size: int | None = None
    """Bytes of the weight files, where they are on disk already."""


class Content(BaseModel):
    """A model set with its weights found: all that a release is made of. It holds no path of a prompt."""

    model_config = ConfigDict(frozen=True)

    model_set: ModelSet
    weights: dict[str, Weights]
    digest: str
    engines: dict[str, str]
    """Engine name to engine digest."""

    @classmethod
    def of(cls, model_set: ModelSet, weights: Mapping[str, Weights]) -> Content:
        """Return ``model_set`` with its digests."""
        engines = {
            name: engine_digest(spec, weights[name].digest if name in weights else None)
            for name, spec in model_set.engines.items()
        }
        digest = model_set_digest(model_set, engines)
        return cls(model_set=model_set, weights=dict(weights), digest=digest, engines=engines)

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        names: dict[str, tuple[str, ...]] = {}
        for name, digest in self.engines.items():
            names[digest] = (*names.get(digest, ()), name)
        return names

    def names_of(self, digest: str) -> tuple[str, ...]:
        """Return what the engine with this digest is called in the set."""
        return self._names.get(digest, ())

    def spec_of(self, digest: str) -> tuple[EngineSpec, Weights | None]:
        """Return the engine with this digest and its weights."""
        name = self._names[digest][0]
        return self.model_set.engines[name], self.weights.get(name)


def canonical(value: Any) -> bytes:
    """Return JSON bytes that are the same for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def engine_digest(spec: EngineSpec, weights: str | None) -> str:
    """Return the digest of an engine: its weights' content, its arguments and its replicas."""
    content = spec.model_dump(mode="json", exclude={"load_timeout", "memory", "price"})
    if weights is not None:
        _forget_source(content)
    return _sha256({"engine": content, "weights": weights})


def _forget_source(content: dict[str, Any]) -> None:
    """Drop where the weights were found: their digest identifies them."""
    if content["kind"] == "vllm":
        content["llm_config"]["model_loading_config"].pop("model_source", None)
    else:
        content.pop("model", None)
        if content.get("revision") is None:  # else it would have another digest than before there were any
            content.pop("revision", None)


def model_set_digest(model_set: ModelSet, engines: Mapping[str, str]) -> str:
    """Return the digest of the whole set, its engines standing in by their own digests."""
    content = model_set.model_dump(mode="json", exclude={"engines"})
    for chain in content["chains"].values():
        # Not there if they are empty: a set has the digest that it had before there were such keys.
        for key in ("allow", "template_variables"):
            if not chain[key]:
                del chain[key]
    # Not there if there are none: a set without prices has the digest that it had before there were any.
    prices = {"prices": model_set.prices} if model_set.prices else {}
    return _sha256({"set": content, "engines": dict(engines), **prices})


def change_digest(user_config: Mapping[str, Any]) -> str:
    """Return the digest that identifies a ``user_config`` of ``SwapManager``."""
    return hashlib.sha256(repr(_ordered(user_config)).encode()).hexdigest()


def _ordered(value: Any, depth: int = 0) -> Any:
    """Return YAML data with mappings as sorted pairs; keys of any type, for nothing is checked yet."""
    if depth > MAX_DEPTH:
        return "nested too deep for any model set"
    if isinstance(value, Mapping):
        pairs = ((repr(key), _ordered(item, depth + 1)) for key, item in value.items())
        return sorted(pairs, key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return [_ordered(item, depth + 1) for item in value]
    return value
