"""Which names and addresses are this host's own, as seen from itself."""

from __future__ import annotations

import functools
import ipaddress


@functools.lru_cache(maxsize=256)
def is_loopback(address: str) -> bool:
    """Say whether an IP address is a loopback one; what is no address is none."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=256)
def names_loopback(host: str) -> bool:
    """Say whether a host, with or without a port as in a ``Host`` header, names this one from itself."""
    name = host.strip().lower()
    if name.startswith("["):
        name, closed, port = name[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return False
        port = port.removeprefix(":")
    else:
        name, _, port = name.partition(":")
    if port and not (port.isascii() and port.isdecimal()):
        return False
    return name.rstrip(".") == "localhost" or is_loopback(name)
