"""Where a manager publishes its address and its gateways: Ray's own key-value store, which its head keeps.

Reading or writing there needs no process of ours, so it works from a node that is about to be cut off. Ray
protects it as it protects everything: who can read it could run code in the cluster as well.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # as Ray's Serve does
from ray.exceptions import RayError

from runtime.channel.wire import UNREADABLE, Address
from runtime.errors import EngineUnavailable

_NAMESPACE = b"interlock"

_ANSWER_SECONDS = 1.5
"""How long Ray's store may take to answer."""


class Registry:
    """What the manager of the application ``app`` has published. One question is asked at a time."""

    def __init__(self, app: str) -> None:
        self._address = f"manager/{app}".encode()
        self._roster = f"gateways/{app}".encode()
        self._client: GcsClient | None = None
        # A call that hangs must not take a thread for each try.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")

    async def publish(self, address: Address) -> None:
        """Publish the manager's address; whoever published before is no manager any more."""
        await self._call("internal_kv_put", self._address, msgspec.msgpack.encode(address), True)  # noqa: FBT003

    async def address(self) -> Address:
        """Return where the manager listens. Raises EngineUnavailable: none has published it yet."""
        found: Address | None = await self._read(self._address, Address)
        if found is None:
            raise EngineUnavailable("no manager has published its address yet")
        return found

    async def save(self, gateways: frozenset[str]) -> None:
        """Keep the names of the gateways that the manager knows."""
        await self._call("internal_kv_put", self._roster, msgspec.msgpack.encode(gateways), True)  # noqa: FBT003

    async def load(self) -> frozenset[str] | None:
        """Return the names that were saved last; None if nothing was."""
        found: frozenset[str] | None = await self._read(self._roster, frozenset[str])
        return found

    async def _read(self, key: bytes, kind: Any) -> Any:
        found = await self._call("internal_kv_get", key)
        try:
            return None if found is None else msgspec.msgpack.decode(found, type=kind)
        except UNREADABLE as error:
            raise EngineUnavailable(
                f"the value of {key.decode()} in Ray's store cannot be read: {error}"
            ) from error

    async def _call(self, method: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS + 0.5):
                return await loop.run_in_executor(self._thread, self._ask, method, *arguments)
        except TimeoutError as error:
            raise EngineUnavailable("Ray's store does not answer") from error

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            if self._client is None:
                self._client = GcsClient(address=ray.get_runtime_context().gcs_address)
            call = getattr(self._client, method)
            return call(*arguments, namespace=_NAMESPACE, timeout=_ANSWER_SECONDS)
        except RayError as error:
            raise EngineUnavailable(f"Ray's store does not answer: {error}") from error
