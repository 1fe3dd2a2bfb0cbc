"""Which callers count as on this host while there is no key: its programs, not web pages in its browser.

Any web page can make its reader's browser send requests to loopback, and can have its own name resolve
there. So while no key keeps it out, a request has to name this host, has to come from no page of
another origin, and what body it has must be JSON, which browsers do not send elsewhere without asking.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from runtime.core.requests.loopback import is_loopback, names_loopback
from runtime.errors import UnsupportedMedia
from runtime.settings import Settings, behind_haproxy

_FORWARDED = ("x-forwarded-for", "x-real-ip", "forwarded")
_OWN_PAGES = frozenset({"same-origin", "none"})
"""What browsers say in ``sec-fetch-site`` of a page of ours, and of an address that somebody has typed."""
_SHOWN = 80


def stranger(request: Request, settings: Settings, pages: Collection[str] = ()) -> str | None:
    """Return why a request does not count as from this host itself, for people; None if it does.

    Web pages of the origins ``pages`` do, too.

    Raises:
        UnsupportedMedia: it does, but for a body that is not said to be JSON.

    """
    if behind_haproxy() and not settings.haproxy_on_loopback:
        return "through HAProxy, which does not pass on who calls (INTERLOCK_HAPROXY_ON_LOOPBACK)"
    address = (request.client.host if request.client else "") or "?"
    # A proxy on this host would otherwise lend its place to the whole world.
    if any(name in request.headers for name in _FORWARDED) or not is_loopback(address):
        return address[:_SHOWN]
    if (why := _page(request.headers, pages)) is not None:
        return why
    _check_media(request.headers)
    return None


def _page(headers: Headers, pages: Collection[str]) -> str | None:
    """Return why a request may come from a web page; None if it comes from a program."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not names_loopback(hosts[0]):
        named = repr(", ".join(hosts)[:_SHOWN]) if hosts else "nothing"
        return f"a caller whose Host header names {named} (ask http://127.0.0.1 or http://localhost)"
    origin = headers.get("origin")
    if origin is not None and origin.lower() in pages:
        return None
    if origin is not None and _host_in(origin) != hosts[0].lower():
        return f"a web page of {origin[:_SHOWN]!r}"
    if headers.get("sec-fetch-site", "none") not in _OWN_PAGES:
        return "a web page of another site"
    return None


def _check_media(headers: Headers) -> None:
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMedia(
            "while no key is needed, a body must come with content-type: application/json", code="json_only"
        )


def _host_in(origin: str) -> str:
    """Return the host and port that an ``Origin`` header names; empty if none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
