"""Encryption of our own connections, by the certificates that encrypt Ray's: both ends show one."""

from __future__ import annotations

import ssl

from runtime.settings import ray_tls


def listening() -> ssl.SSLContext | None:
    """Return how to take connections; None if Ray's are not encrypted. Raises OSError: a file is no good."""
    return _context(ssl.PROTOCOL_TLS_SERVER)


def calling() -> ssl.SSLContext | None:
    """Return how to make connections; None if Ray's are not encrypted. Raises OSError: a file is no good."""
    return _context(ssl.PROTOCOL_TLS_CLIENT)


def _context(purpose: int) -> ssl.SSLContext | None:
    files = ray_tls()
    if files is None:
        return None
    context = ssl.SSLContext(purpose)
    # As Ray does it: a certificate is a node's, and its addresses may change. The secret tells which process.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authority)
    return context
