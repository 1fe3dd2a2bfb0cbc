"""Which process this is, so that a manager on the same machine can find out whether it has ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

from ray._private.worker import global_worker

from runtime.core.swap.holder import Holder
from runtime.serve.cluster.serve_status import serve_status

_log = logging.getLogger(__name__)

_SAME_START_SECONDS = 1.0

_START_FIELD = 19
"""Which of the fields behind a process's name says when it began (proc(5), ``starttime``)."""


def own_holder(application: str) -> Holder:
    """Return this manager as others that open its store see it."""
    return Holder(
        cluster=_cluster(),
        application=application,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
    )


async def is_deployed(holder: Holder) -> bool:
    """Say whether the manager's application is in this Ray cluster, and stays. Raises EngineUnavailable."""
    if holder.cluster != _cluster():
        return False
    status = await asyncio.to_thread(serve_status)
    application = status.applications.get(holder.application)
    return application is not None and application.status != "DELETING"


def _cluster() -> str:
    return str(global_worker.gcs_client.cluster_id.hex())


def has_ended(holder: Holder) -> bool:
    """Say whether the process is known to be over; of one on another machine nothing is known."""
    if not holder.machine or holder.machine != _machine():
        return False
    try:
        return abs(_started(holder.pid) - holder.started) > _SAME_START_SECONDS
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError, IndexError) as error:
        _log.info("could not find out whether process %d still runs: %s", holder.pid, error)
        return False


def _started(pid: int) -> float:
    """Return when a process began, in seconds since the machine's start: a step of its clock changes nothing.

    Raises OSError: there is no such process, or the system does not report it.
    """
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    ticks = stat.rpartition(")")[2].split()[_START_FIELD]
    return float(ticks) / os.sysconf("SC_CLK_TCK")


def _machine() -> str:
    """Return an id of this boot and this container's process namespace; empty if it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError as error:
        _log.info("could not read the id of this machine: %s", error)
        return ""
