"""The admin API over HTTP, with the command line's errors."""

from __future__ import annotations

from typing import Any

import httpx

from runtime.errors import CommandError, Unavailable
from runtime.settings import Settings

_TIMEOUT_S = 10.0


class AdminClient:
    """Asks one gateway, which asks the manager."""

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        self._address = address or settings.address
        headers = {}
        if settings.admin_key:
            headers["authorization"] = f"Bearer {settings.admin_key.get_secret_value()}"
        self._http = httpx.Client(
            base_url=self._address, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        )

    def status(self) -> dict[str, Any]:
        """Return the control state.

        Raises:
            Unavailable: nobody answers there, or not yet.
            CommandError: somebody answers and refuses.

        """
        try:
            answer = self._http.get("/admin/v1/status")
        except httpx.TransportError as error:
            message = f"no gateway answers at {self._address} ({error}); is the application deployed?"
            raise Unavailable(message) from error
        if (
            answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            or answer.status_code == httpx.codes.NOT_FOUND
        ):
            raise Unavailable(f"{self._address} answered {answer.status_code}: {answer.text[:200]}")
        if answer.is_error:
            raise CommandError(f"{self._address} refused: {answer.text[:500]}")
        status: dict[str, Any] = answer.json()
        return status
