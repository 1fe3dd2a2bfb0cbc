"""The main memory that processes here may use: a container's limit, where there is one, not its machine's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

_log = logging.getLogger(__name__)


class MainMemory(NamedTuple):
    """Sizes in bytes."""

    total: int
    free: int


class _Files(NamedTuple):
    """The names of the memory files in a version of control groups."""

    limit: str
    used: str
    reclaimable: str
    """In ``memory.stat``: what of the used is files that nobody has read lately."""


_V2 = _Files("memory.max", "memory.current", "inactive_file")
_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def main_memory(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> MainMemory:
    """Return what there is, within the narrowest limit of the control groups that this process is in."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for folder, files in _groups(groups, own):
        limit = _limit(folder, files)
        if limit is not None and limit.total < machine.total:  # else it is the kernel's word for none
            total, free = min(total, limit.total), min(free, limit.free)
    return MainMemory(total, max(0, free))


def _groups(groups: Path, own: Path) -> Iterator[tuple[Path, _Files]]:
    """Yield the folders of this process's groups, and of all around them.

    Where a container sees its own group as the root, the path in ``own`` may not be there.
    """
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError as error:
        _log.info("could not read the control groups of this process: %s", error)
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from ((folder, _V2) for folder in _up(groups, path))
            yield from ((folder, _V2) for folder in _up(groups / "unified", path))
        elif "memory" in controllers.split(","):
            yield from ((folder, _V1) for folder in _up(groups / "memory", path))


def _up(root: Path, path: str) -> Iterator[Path]:
    folder = root / path.strip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _limit(folder: Path, files: _Files) -> MainMemory | None:
    """Return a group's limit and what is left of it; None if it has none, or cannot be read."""
    try:
        limit = (folder / files.limit).read_text(encoding="ascii").strip()
        if not limit.isdecimal():
            return None
        used = int((folder / files.used).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError) as error:
        _log.debug("%s has no readable memory limit: %s", folder, error)
        return None
    return MainMemory(int(limit), int(limit) - used + int(stat.get(files.reclaimable, 0)))
