"""A network of one's own: nothing that a peer opens can be reached from outside of it.

Serve's HAProxy and the gRPC servers of its replicas listen on all interfaces and cannot be told otherwise.
In a network namespace that has a loopback and nothing else, that is loopback.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import sys
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_REQUEST = "16sh14x"


def is_own() -> bool:
    """Say whether this process has a network without any interface but loopback, and bring that up."""
    table = Path("/proc/net/dev")
    if not table.exists():
        return False
    names = [line.split(":")[0].strip() for line in table.read_text().splitlines()[2:]]
    if names != ["lo"]:
        return False
    with socket.socket() as any_socket:
        request = struct.pack(_REQUEST, b"lo", 0)
        _, flags = struct.unpack(_REQUEST, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        if not flags & _IFF_UP:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_REQUEST, b"lo", flags | _IFF_UP))
    return True


def enter(module: str) -> None:
    """Start this program anew in a network of its own, as the same process; return if that is not possible.

    Whoever may not make one as they are (only root may) makes it as root of a user namespace.
    """
    unshare = shutil.which("unshare")
    if unshare is None or is_own():
        return
    options = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    if os.spawnv(os.P_WAIT, unshare, [unshare, *options, "true"]) != 0:  # noqa: S606 - our own arguments
        return
    command = [unshare, *options, sys.executable, "-m", module, *sys.argv[1:]]
    os.execv(unshare, command)  # noqa: S606 - our own arguments
