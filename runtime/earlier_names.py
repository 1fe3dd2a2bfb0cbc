"""Where an earlier Interlock had what crosses processes by its name.

Engines outlive the Interlock that started them: its replicas answer over Serve's handles with values that
they name as they knew them, and Serve starts a replica again by the class that it was deployed with.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any

MOVED = MappingProxyType(
    {
        "runtime.core.ledger": ("runtime.core.metering.ledger",),
        "runtime.core.phase": ("runtime.core.swap.phase",),
        "runtime.core.series": ("runtime.core.metering.series",),
        "runtime.core.specs": ("runtime.core.model_set.engines",),
        "runtime.core.usage": ("runtime.core.metering.usage",),
        "runtime.serve.fake_engine": ("runtime.serve.hosts.fake",),
        "runtime.serve.fault": ("runtime.channel.fault",),
        "runtime.serve.llm_engine": ("runtime.serve.hosts.vllm.engine",),
        "runtime.serve.load_board": ("runtime.serve.loading.board",),
        "runtime.serve.transformers_engine": ("runtime.serve.hosts.transformers",),
        "runtime.serve.wire": ("runtime.channel.wire",),
    }
)
"""A module's earlier name, and where its names are now."""

RENAMED = MappingProxyType(
    {
        ("runtime.core.series", "Kind"): "MetricKind",
        ("runtime.core.series", "Told"): "MetricsSnapshot",
        ("runtime.core.specs", "FakeEngine"): "FakeEngineSpec",
        ("runtime.core.specs", "TransformersEngine"): "TransformersEngineSpec",
        ("runtime.core.specs", "VllmEngine"): "VllmEngineSpec",
    }
)
"""Names of those modules that are others now."""


class _EarlierNames(MetaPathFinder, Loader):
    """Finds a module by its earlier name, as one whose names are looked up where they are now."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        now = MOVED[module.__name__]

        def found(name: str) -> Any:
            wanted = RENAMED.get((module.__name__, name), name)
            for each in map(importlib.import_module, now):
                if hasattr(each, wanted):
                    return getattr(each, wanted)
            raise AttributeError(f"{module.__name__!r} has no {name!r}")

        module.__getattr__ = found  # type: ignore[method-assign]


def know_earlier_names() -> None:
    """Let pickles of an earlier Interlock be read in this process."""
    if not any(isinstance(finder, _EarlierNames) for finder in sys.meta_path):
        sys.meta_path.append(_EarlierNames())
