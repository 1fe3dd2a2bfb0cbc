"""The memory of a node, measured on the node itself."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from runtime.core.model_set.memory import Device, main_memory_of
from runtime.serve.cluster.memory_limit import main_memory

_log = logging.getLogger(__name__)


def devices_of(node: str) -> list[Device]:
    """Return this node's main memory and its GPUs; ``node`` is what they are named after."""
    memory = main_memory()
    main = Device(id=main_memory_of(node), kind="cpu", total=memory.total, free=memory.free)
    return [main, *_gpus(node)]


def _gpus(node: str) -> list[Device]:
    nvml = _nvml()
    if nvml is None:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        memory = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index))
        gpu = Device(id=f"{node}/gpu{index}", kind="gpu", total=memory.total, free=memory.free)
        found.append(gpu)
    return found


def _nvml() -> Any:
    """Return NVIDIA's management library, initialised; None where there is none, or no GPU."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - its errors derive from Exception alone
        _log.info("no GPU is counted here: %s", error)
        return None
    return nvml
