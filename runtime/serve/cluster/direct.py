"""An engine as requests call it: over channels if they lead to all its replicas, else over Serve's handle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Protocol

import msgspec

from runtime.channel.client import Channel, least_busy
from runtime.channel.wire import Address
from runtime.clock import SystemClock
from runtime.core.metering.usage import Usage
from runtime.engines.port import Body, Chunk, Classification, Embeddings, EngineClient
from runtime.errors import EngineLost, EngineUnavailable
from runtime.loops import LoopWatch
from runtime.serve import tls

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0
"""How often the list of replicas is refreshed: one that Serve has added gets no calls until then."""

RETRY_SECONDS = 0.5
"""The same after one was lost, or did not answer."""

CONNECT_SECONDS = 2.0
"""How long a replica may take to report its address, or to accept a connection. The handle waits longer."""


class EngineHandle(EngineClient, Protocol):
    """The handle: it takes every call, and knows where the replicas are."""

    async def addresses(self) -> list[Address | None]:
        """Return where each replica takes calls; None of one that takes them over the handle only.

        Raises EngineUnavailable.
        """
        ...


class DirectEngine:
    """One engine application. One instance serves all requests of a gateway; ``open`` it first."""

    def __init__(self, handle: EngineHandle, loops: LoopWatch | None = None) -> None:
        """Call over ``handle``, or past it; ``loops`` watches the refreshing of the list of replicas."""
        self._handle = handle
        self._tls = tls.calling()
        self._loops = loops or LoopWatch("gateway", SystemClock())
        self._channels: dict[str, Channel] = {}
        self._all_connected = False
        """Whether there is a channel to every replica, by the last refresh: one without gets its share of the
        calls over the handle only."""
        self._replicas = 0
        """How many there were then."""
        self._refreshed = False
        """Whether the last refresh succeeded."""
        self._lost = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return once the engine has answered, with channels to all replicas that take one."""
        await self._handle.ping()
        try:
            refreshed = await self._refresh()
        except BaseException:
            await self.close()
            raise
        self._refreshed = refreshed
        self._refreshing = asyncio.create_task(self._loops.keep("look for replicas", self._keep_refreshing))

    async def close(self) -> None:
        """Close the channels; nothing is under way any more. The handle is its owner's."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        for channel in list(self._channels.values()):
            await channel.close()

    # -- calls ------------------------------------------------------------------------------------

    def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Return what yields what a replica generates; closing it aborts it there."""
        channel = self._choose()
        return self._handle.generate(body) if channel is None else channel.generate(body)

    async def classify(self, body: Body) -> Classification:
        """Classify on one replica."""
        channel = self._choose()
        if channel is None:
            return await self._handle.classify(body)
        return msgspec.convert(await channel.ask("classify", body), Classification)

    async def embed(self, body: Body) -> Embeddings:
        """Embed on one replica."""
        channel = self._choose()
        if channel is None:
            return await self._handle.embed(body)
        return msgspec.convert(await channel.ask("embed", body), Embeddings)

    async def count(self, operation: str, body: Body) -> int:
        """Ask one replica how many prompt tokens a call would read."""
        channel = self._choose()
        if channel is None:
            return await self._handle.count(operation, body)
        return msgspec.convert(await channel.ask("count", operation, body), int)

    async def ping(self) -> None:
        """Return once a replica has answered."""
        channel = self._choose()
        if channel is None:
            await self._handle.ping()
        else:
            await channel.ask("ping")

    async def spent(self, hop: str) -> Usage | None:
        """Ask all replicas what a call has spent; one of them had it, unless that one is gone."""
        if not self._all_connected or len(self._channels) != self._replicas:
            return await self._handle.spent(hop)
        calls = (channel.ask("spent", hop) for channel in list(self._channels.values()))
        usages = msgspec.convert(await asyncio.gather(*calls), list[Usage | None])
        return next((usage for usage in usages if usage is not None), None)

    # -- replicas -----------------------------------------------------------------------------

    def _lose(self, channel: Channel) -> None:
        """Drop this channel, and refresh the list of replicas soon."""
        if self._channels.get(channel.replica) is channel:
            del self._channels[channel.replica]
            self._lost.set()

    def _choose(self) -> Channel | None:
        return least_busy(self._channels.values()) if self._all_connected else None

    async def _keep_refreshing(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS if self._refreshed else RETRY_SECONDS):
                    await self._lost.wait()
            if self._lost.is_set():
                self._lost.clear()
                # Until Ray knows that a replica is dead, it is still among those who are asked.
                await asyncio.sleep(RETRY_SECONDS)
            self._refreshed = False  # if the refresh breaks, it is done again soon
            self._refreshed = await self._refresh()

    async def _refresh(self) -> bool:
        """Open channels to new replicas, retire those to replicas that are gone; say whether all answered."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):  # one that stands still would keep all waiting
                addresses = await self._handle.addresses()
        except (EngineUnavailable, TimeoutError) as error:
            _log.info("could not get the addresses of all replicas: %r", error)
            return False
        known = {address.replica: address for address in addresses if address is not None}
        new = [address for replica, address in known.items() if replica not in self._channels]
        await asyncio.gather(*map(self._connect, new))
        for replica in set(self._channels) - set(known):
            self._channels.pop(replica).retire()
        self._replicas = len(addresses)
        self._all_connected = len(self._channels) == self._replicas
        return True

    async def _connect(self, address: Address) -> None:
        channel = Channel(address, self._lose, tls=self._tls)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.open()
        except (EngineLost, TimeoutError) as error:
            reason = str(error) or f"no answer within {CONNECT_SECONDS:g} s"
            _log.warning("no channel to %s, so calls go through Serve: %s", address.replica, reason)
            await channel.close()
        except BaseException:
            await channel.close()
            raise
        else:
            self._channels[address.replica] = channel
