"""A gateway's end of its link to the manager: one connection for all calls, made anew when it breaks.

Where the manager listens is read from where it has published it, and only while there is no connection. No
call through Serve's handle is ever open: Ray would keep the manager from answering anybody while it reports a
reply to a gateway that cannot be reached.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Protocol, cast

from runtime.channel.client import Channel
from runtime.channel.wire import UNENCODABLE, UNREADABLE, Address
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.commands import Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import Status
from runtime.errors import EngineLost, EngineUnavailable, InvalidRequest, NoManager
from runtime.serve.management.calls import METHODS, SILENT_S, Method, decode_error_reply, encode, error_of

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long it may take to find the manager and to connect to it."""

RECONNECT_SECONDS = 1.5
"""How long it may take to connect to its last address."""

RETRY_SECONDS = 0.5
"""Pause before the next try while an operator waits."""

PATIENCE_SECONDS = 10.0
"""How long an operator's question waits for a manager: one that has died is replaced within this, mostly."""

_PATIENT = frozenset({"status", "command", "plan", "audit"})


class Directory(Protocol):
    """Where a manager publishes its address."""

    async def address(self) -> Address:
        """Return it. Raises EngineUnavailable: there is none yet, or the directory does not answer."""
        ...


class ManagerLink:
    """The manager as a gateway sees it. ``close`` it at last.

    Every call may raise EngineUnavailable: it does not answer, or the answer is lost; and NoManager of those
    that do not wait for one.
    """

    def __init__(self, directory: Directory, tls: ssl.SSLContext | None = None) -> None:
        self._directory = directory
        self._tls = tls
        self._channel: Channel | None = None
        self._last_address: Address | None = None
        self._connecting: asyncio.Task[Channel] | None = None

    async def close(self) -> None:
        """End the connection; no calls follow."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._channel is not None:
            await self._channel.close()

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Return the table once it is newer than the report's, or after a while."""
        return cast("RoutingTable", await self._ask("next_table", report))

    async def report(self, report: GatewayReport) -> TableStamp:
        """Send this gateway's report; return the stamp of the newest table."""
        return cast("TableStamp", await self._ask("report", report))

    async def activity(self, counts: GatewayActivity) -> None:
        """Send what this gateway has counted for status and health."""
        await self._ask("activity", counts)

    async def leave(self, gateway: str) -> None:
        """Say goodbye."""
        await self._ask("leave", gateway)

    async def count(self, snapshot: MetricsSnapshot) -> None:
        """Send what this gateway has counted for Prometheus. Raises StoreUnavailable."""
        await self._ask("count", snapshot)

    async def metrics(self, snapshot: MetricsSnapshot) -> bytes:
        """Return what the whole application has counted. Raises StoreUnavailable."""
        return cast("bytes", await self._ask("metrics", snapshot))

    async def status(self) -> Status:
        """Return the control state for people."""
        return cast("Status", await self._ask("status"))

    async def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        return cast("dict[str, Any]", await self._ask("health"))

    async def command(self, command: Command) -> Status:
        """Carry an operator's command out. Raises CommandRefused."""
        return cast("Status", await self._ask("command", command))

    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to the model set would do. Raises ModelSetError."""
        return cast("dict[str, Any]", await self._ask("plan", wanted))

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log."""
        return cast("list[dict[str, Any]]", await self._ask("audit", limit))

    async def changes(self, after: int | None) -> ChangeBatch:
        """Return the changes of releases and engines after an id, or none after a while."""
        return cast("ChangeBatch", await self._ask("changes", after))

    # -- asking -----------------------------------------------------------------------------------

    async def _ask(self, name: str, *arguments: Any) -> Any:
        method = METHODS[name]
        try:
            encoded = [encode(argument) for argument in arguments]
        except UNENCODABLE as error:
            raise InvalidRequest(f"this cannot be sent to the manager: {error}") from error
        channel = await self._connected(PATIENCE_SECONDS if name in _PATIENT else 0.0)
        try:
            async with asyncio.timeout(method.seconds):
                reply = await channel.ask(name, *encoded)
        except TimeoutError as error:
            message = f"the manager did not answer {name} within {method.seconds:g} s"
            raise EngineUnavailable(message) from error
        return _answer(name, method, reply)

    async def _connected(self, patience: float) -> Channel:
        """Return the connection; if there is none, try to make one for ``patience`` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while True:
            if self._channel is not None:
                return self._channel
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._end_connecting)
            try:
                return await asyncio.shield(self._connecting)
            except EngineUnavailable:
                if loop.time() + RETRY_SECONDS > end:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    def _end_connecting(self, ended: asyncio.Task[Channel]) -> None:
        self._connecting = None
        if not ended.cancelled() and ended.exception() is not None:
            _log.info("no connection to the manager: %s", ended.exception())

    async def _connect(self) -> Channel:
        """Connect to the manager's last address, or to the one that it has published."""
        if self._last_address is not None:
            try:
                return await self._open(self._last_address, RECONNECT_SECONDS)
            except EngineUnavailable as error:
                _log.info("the manager is not at its last address: %s", error)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                address = await self._directory.address()
                return await self._open(address, CONNECT_SECONDS)
        except EngineLost as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                raise NoManager(f"there is no manager now: {error}") from error
            raise
        except TimeoutError as error:
            message = f"no connection to the manager within {CONNECT_SECONDS:g} s"
            raise EngineUnavailable(message) from error

    async def _open(self, address: Address, seconds: float) -> Channel:
        channel = Channel(address, self._lose, SILENT_S, self._tls)
        try:
            async with asyncio.timeout(seconds):
                await channel.open()
        except BaseException as error:
            await channel.close()
            if isinstance(error, TimeoutError):
                raise EngineUnavailable(f"no connection to {address.replica} within {seconds:g} s") from error
            raise
        self._channel, self._last_address = channel, address
        return channel

    def _lose(self, channel: Channel) -> None:
        if self._channel is channel:
            self._channel = None


def _answer(name: str, method: Method, reply: Any) -> Any:
    try:
        answered, encoded = reply
        if answered:
            return method.decode_answer(encoded)
        refused = error_of(decode_error_reply(encoded))
    except (*UNREADABLE, TypeError, ValueError) as error:
        raise EngineUnavailable(f"the manager's answer to {name} cannot be read: {error}") from error
    raise refused
