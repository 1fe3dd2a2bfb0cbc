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

LOOK_SECONDS = 10.0
"""How often replicas are looked for: one that Serve has added gets no calls until then."""

LOOK_AGAIN_SECONDS = 0.5
"""The same after one was lost, or could not be asked."""

CONNECT_SECONDS = 2.0
"""How long a replica may take to say where it is, or to take a connection. Over the handle it waits."""


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
        """Call over ``handle``, or past it; ``loops`` watches the looking for replicas."""
        self._handle = handle
        self._tls = tls.calling()
        self._loops = loops or LoopWatch("gateway", SystemClock())
        self._channels: dict[str, Channel] = {}
        self._everywhere = False
        """Whether there was a way to every replica when they were looked for last: one that none leads to
        gets its share of the calls over the handle only."""
        self._replicas = 0
        """How many there were then."""
        self._found = False
        """Whether replicas told where they are when they were asked last."""
        self._lost = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return once the engine has answered, with channels to all replicas that take one."""
        await self._handle.ping()
        try:
            found = await self._look()
        except BaseException:
            await self.close()
            raise
        self._found = found
        self._looking = asyncio.create_task(self._loops.keep("look for replicas", self._keep_looking))

    async def close(self) -> None:
        """Close the channels; nothing is under way any more. The handle is its owner's."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
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
        if not self._everywhere or len(self._channels) != self._replicas:
            return await self._handle.spent(hop)
        asked = (channel.ask("spent", hop) for channel in list(self._channels.values()))
        told = msgspec.convert(await asyncio.gather(*asked), list[Usage | None])
        return next((usage for usage in told if usage is not None), None)

    # -- who is there -----------------------------------------------------------------------------

    def _lose(self, channel: Channel) -> None:
        """Call nobody over this channel any more, and look soon who is there instead."""
        if self._channels.get(channel.replica) is channel:
            del self._channels[channel.replica]
            self._lost.set()

    def _choose(self) -> Channel | None:
        return least_busy(self._channels.values()) if self._everywhere else None

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self._found else LOOK_AGAIN_SECONDS):
                    await self._lost.wait()
            if self._lost.is_set():
                self._lost.clear()
                # Until Ray knows that a replica is dead, it is still among those who are asked.
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            self._found = False  # if looking breaks, it is done again soon
            self._found = await self._look()

    async def _look(self) -> bool:
        """Open channels to new replicas, retire those to replicas that are gone; say whether all told."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):  # one that stands still would keep all waiting
                told = await self._handle.addresses()
        except (EngineUnavailable, TimeoutError) as error:
            _log.info("it is not known where all replicas are: %r", error)
            return False
        known = {address.replica: address for address in told if address is not None}
        new = [address for replica, address in known.items() if replica not in self._channels]
        await asyncio.gather(*map(self._connect, new))
        for replica in set(self._channels) - set(known):
            self._channels.pop(replica).retire()
        self._replicas = len(told)
        self._everywhere = len(self._channels) == self._replicas
        return True

    async def _connect(self, address: Address) -> None:
        channel = Channel(address, self._lose, tls=self._tls)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.open()
        except (EngineLost, TimeoutError) as error:
            why = str(error) or f"no answer within {CONNECT_SECONDS:g} s"
            _log.warning("called through Serve, for there is no way to %s: %s", address.replica, why)
            await channel.close()
        except BaseException:
            await channel.close()
            raise
        else:
            self._channels[address.replica] = channel
