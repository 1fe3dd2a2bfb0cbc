"""Which process this is, so that a manager on the same machine can tell whether it is over."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import psutil
from ray._private.worker import global_worker

from runtime.core.holder import Holder
from runtime.serve.serve_status import serve_status

_log = logging.getLogger(__name__)

_SAME_START_SECONDS = 1.0


def own_holder(application: str) -> Holder:
    """Return this manager as others that look at its store know it."""
    return Holder(
        cluster=_cluster(),
        application=application,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
    )


def is_deployed(holder: Holder) -> bool:
    """Say whether the manager's application is in this Ray cluster, and stays. Raises EngineUnavailable."""
    if holder.cluster != _cluster():
        return False
    application = serve_status().applications.get(holder.application)
    return application is not None and application.status != "DELETING"


def _cluster() -> str:
    return str(global_worker.gcs_client.cluster_id.hex())


def has_ended(holder: Holder) -> bool:
    """Say whether the process is known to be over; of one on another machine nothing is known."""
    if not holder.machine or holder.machine != _machine():
        return False
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.started) > _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return True
    except psutil.Error as error:
        _log.info("whether process %d still runs is not known: %s", holder.pid, error)
        return False


def _machine() -> str:
    """Return what tells this boot and this container's processes from others; nothing if it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError as error:
        _log.info("which machine this is, is not known: %s", error)
        return ""
