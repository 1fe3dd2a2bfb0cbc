"""Forgetting what Ray keeps of the replicas of an application that is gone.

Serve makes an actor class for each application, and Ray keeps every class that it has ever loaded, with
entries for each of its methods, for as long as the process lives: a gateway grew with each swap. There
is no public way to let go of it. This is written for Ray 2.60; with a Ray that keeps it
elsewhere a gateway grows, and nothing else happens.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.actor import _ActorClassMethodMetadata

# The type checker does not see into Ray's compiled module.
_descriptor: Any = getattr(ray._raylet, "PythonFunctionDescriptor")  # noqa: B009, SLF001

_log = logging.getLogger(__name__)


def forget_replicas_of(app: str) -> None:
    """Drop the actor classes of the application's replicas; Ray loads one again if it needs it."""
    prefix = f"ServeReplica:{app}:"
    try:
        _forget_classes(prefix)
        _forget_signatures(prefix)
    except AttributeError as error:
        _log.info("this version of Ray keeps actor classes elsewhere, so they are not freed: %s", error)


def _forget_classes(prefix: str) -> None:
    table = global_worker.function_actor_manager
    with table.lock:
        loaded = table._loaded_actor_classes  # noqa: SLF001
        gone = {key: known for key, known in loaded.items() if known.__name__.startswith(prefix)}
        for key, actor_class in gone.items():
            del loaded[key]
            for name, _ in inspect.getmembers(actor_class, inspect.isroutine):
                method = _descriptor(actor_class.__module__, name, actor_class.__name__)
                table._function_execution_info.pop(method.function_id, None)  # noqa: SLF001
                table._num_task_executions.pop(method.function_id, None)  # noqa: SLF001


def _forget_signatures(prefix: str) -> None:
    cache = _ActorClassMethodMetadata._cache  # noqa: SLF001
    for descriptor in [known for known in cache if known.class_name.startswith(prefix)]:
        del cache[descriptor]
