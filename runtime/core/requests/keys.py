"""API keys and their callers.

A key is a random secret of 256 bits, so its plain SHA-256 can be stored: nobody finds a secret of that
length by trying, which is what slow hashes with salts are for.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from runtime.errors import InvalidRequest

RANDOM_BYTES = 32
"""How many random bytes a key is made of."""

_SHOWN = 9
"""``il-`` and six characters: enough to tell keys apart, and far too little to guess the rest."""
_ID = 12
_SECRET = re.compile(r"il-[A-Za-z0-9_-]{43}")
TENANT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""How a tenant is named."""

KEY_ID = rf"key-[0-9a-f]{{{_ID}}}"
"""How a key's id looks, by which operators name it."""

MAX_NAME = 128


@dataclass(frozen=True)
class Caller:
    """Who a request is for."""

    tenant: str
    key: str
    """The key's id."""


OPEN = Caller(tenant="", key="")
"""Somebody on this host, while there are no keys."""


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key. Times are wall time in seconds."""

    id: str
    digest: str
    prefix: str
    """How the secret begins, for people who have to find it again."""
    tenant: str
    name: str
    created: float
    revoked: float | None = None

    @property
    def caller(self) -> Caller:
        """Whom a request with this key is for."""
        return Caller(self.tenant, self.id)

    def as_json(self) -> dict[str, Any]:
        """Return the key as the admin API shows it: nothing of the secret but its prefix."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "name": self.name,
            "prefix": self.prefix,
            "created": self.created,
            "revoked": self.revoked,
        }


def secret_of(random: bytes) -> str:
    """Return the secret that ``RANDOM_BYTES`` random bytes make."""
    return "il-" + base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def is_secret(text: str) -> bool:
    """Say whether ``text`` has the form of a key; if not, there is none like it in any store."""
    return _SECRET.fullmatch(text) is not None


def digest_of(secret: str) -> str:
    """Return the digest by which a secret is stored and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()


def tenant_complaint(tenant: str) -> str | None:
    """Return what is wrong with a tenant's name; None if nothing is."""
    if re.fullmatch(TENANT, tenant) is not None:
        return None
    return "must be 1 to 64 letters, digits and . _ - and begin with a letter or a digit"


def name_complaint(name: str) -> str | None:
    """Return what is wrong with a key's name; None if nothing is."""
    if len(name) <= MAX_NAME and name.isprintable():
        return None
    return f"must be at most {MAX_NAME} printable characters"


def is_key_id(text: str) -> bool:
    """Say whether ``text`` has the form of a key's id; if not, there is none like it in any store."""
    return re.fullmatch(KEY_ID, text) is not None


def key_of(secret: str, tenant: str, name: str, at: float) -> ApiKey:
    """Return what is kept of a new key.

    Raises:
        InvalidRequest: the tenant or the name cannot be one.

    """
    for param, complaint in (("tenant", tenant_complaint(tenant)), ("name", name_complaint(name))):
        if complaint is not None:
            raise InvalidRequest(f"{param} {complaint}", param=param)
    digest = digest_of(secret)
    return ApiKey(f"key-{digest[:_ID]}", digest, secret[:_SHOWN], tenant, name, at)
