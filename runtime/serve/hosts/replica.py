"""Hosting an engine in a Serve replica, and calling it over a handle: both ends of that wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextvars import Context
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse
from ray.util import get_node_ip_address

from runtime.channel.engine_calls import answering
from runtime.channel.fault import Fault, fault_of, raise_fault
from runtime.channel.server import ChannelServer
from runtime.channel.wire import Address
from runtime.core.metering.ledger import Batch
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.metering.usage import Usage
from runtime.core.model_set.drain_time import engine_drain
from runtime.core.swap.installation import engine_in_name
from runtime.engines import deadline
from runtime.engines.port import Body, Chunk, Classification, Embeddings, Engine
from runtime.errors import EngineLost, EngineUnavailable, InterlockError
from runtime.serve import tls

_log = logging.getLogger(__name__)

_SERVES_ROUTER = RequestRouterConfig().request_router_class

_CALLS = frozenset(
    {
        *("classify", "embed", "warm", "ping", "sleep", "wake", "idle"),
        *("metered", "count", "spent", "ended", "metrics"),
    }
)
"""What may be called by name on an engine from outside its replica."""


_BROADCAST_SECONDS = 10.0
"""How long every replica may take to answer what it knows. One on a node that is cut off would keep the
caller waiting until Ray gives that node up, a minute or more."""

_LONG = frozenset({"warm", "sleep", "wake"})
"""Calls without a limit of their own: the caller sets one."""


class EngineReplica:
    """Mixin of deployments that host an engine: sets ``_hosted`` once it is loaded."""

    _hosted: Engine
    _digest = ""
    _sequence = 0
    _server: ChannelServer | None = None
    _address: asyncio.Task[Address | None] | None = None

    def _identity(self) -> str:
        """Return the digest in the name of this replica's application: its identity for every caller."""
        if not self._digest:
            self._digest = engine_in_name(serve.get_replica_context().app_name)
        return self._digest

    async def engine_stream(self, body: Body) -> AsyncGenerator[list[Chunk] | Fault, None]:
        """Yield what the engine generates; a fault, if any, comes last."""
        try:
            signed = False
            async for chunks in deadline.generate(self._hosted, body):
                if not signed:
                    chunks[0] = chunks[0]._replace(engine=self._identity())
                    signed = True
                yield chunks
        except InterlockError as error:
            yield fault_of(error)

    async def engine_address(self) -> Address | None:
        """Return where this replica takes calls past Serve; None if Serve has to count or route them."""
        config = serve.get_replica_context()._deployment_config  # noqa: SLF001 - no public way to one's own
        own_router = config.request_router_config.request_router_class != _SERVES_ROUTER
        if config.autoscaling_config is not None or own_router:
            return None
        if self._address is None:
            self._address = asyncio.create_task(self._listen(config.max_ongoing_requests))
        return await asyncio.shield(self._address)

    async def _listen(self, limit: int) -> Address | None:
        self._server = ChannelServer(answering(self), serve.get_replica_context().replica_tag, limit)
        try:
            return await self._server.open(get_node_ip_address(), tls.listening())
        except OSError as error:
            _log.warning("this replica cannot listen, so it is called through Serve only: %s", error)
            return None

    async def __del__(self) -> None:
        """End the calls that Serve does not see. It calls this when it stops the replica, after its own."""
        try:
            if self._server is not None:
                config = serve.get_replica_context()._deployment_config  # noqa: SLF001 - as above
                await self._server.close(engine_drain(config.graceful_shutdown_timeout_s))
        finally:
            of_host = getattr(super(), "__del__", None)
            if of_host is not None:
                await of_host()

    async def engine_ended(self, cursors: Mapping[str, int], age: float, limit: int) -> Batch:
        """Return hops that have ended here; ``cursors`` say up to which each replica's are in the ledger."""
        me = serve.get_replica_context().replica_tag
        return Batch(me, await self._hosted.ended(cursors.get(me, 0), age, limit))

    async def engine_metrics(self) -> MetricsSnapshot:
        """Return what the engine's software has counted in this process."""
        self._sequence += 1
        sequence, replica = self._sequence, serve.get_replica_context().replica_tag
        return MetricsSnapshot(replica, sequence, await self._hosted.metrics())

    async def engine_call(self, method: str, *args: Any) -> Any:
        """Call a method of the engine by name; return its result or a fault."""
        if method not in _CALLS:
            return Fault("EngineUnavailable", f"an engine has no call {method!r}")
        try:
            result = await self._result_of(method, *args)
            return result._replace(engine=self._identity()) if isinstance(result, Classification) else result
        except InterlockError as error:
            return fault_of(error)

    async def _result_of(self, method: str, *args: Any) -> Any:
        if method == "classify":
            return await deadline.classify(self._hosted, *args)
        return await getattr(self._hosted, method)(*args)


async def answer_of(response: DeploymentResponse) -> Any:
    """Return what a handle call gives; cancelling this cancels the call in its replica.

    Raises:
        EngineLost: the process that had taken the call is gone.
        EngineUnavailable: Ray could not bring the call to an end.

    """
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except RayActorError as error:
        raise EngineLost(f"the replica that had taken the call is gone: {_first_line(error)}") from error
    except (RayError, RayServeException) as error:
        raise EngineUnavailable(f"the call did not end: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


class HandleEngine:
    """An engine application, called over its handle. One instance serves all requests."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._stream = handle.options(stream=True, method_name="engine_stream")
        self._call = handle.options(method_name="engine_call")

    async def close(self) -> None:
        """End the routing behind the handles; it would poll for a deleted application for ever."""
        for handle in (self._handle, self._stream, self._call):
            await handle.shutdown_async()

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield what a replica generates; closing this aborts it there."""
        response = self._stream.remote(body)
        ended = False
        try:
            async for item in response:
                if isinstance(item, Fault):
                    raise_fault(item)
                yield cast("list[Chunk]", item)
            ended = True
        except RayActorError as error:
            raise EngineLost(f"the replica that generated is gone: {_first_line(error)}") from error
        except (RayError, RayServeException) as error:
            raise EngineUnavailable(f"the stream broke: {_first_line(error)}") from error
        finally:
            if not ended:
                response.cancel()

    async def classify(self, body: Body) -> Classification:
        """Classify on one replica."""
        return cast("Classification", await self._ask("classify", body))

    async def embed(self, body: Body) -> Embeddings:
        """Embed on one replica."""
        return cast("Embeddings", await self._ask("embed", body))

    async def ping(self) -> None:
        """Return once a replica has answered."""
        await self._ask("ping")

    async def count(self, operation: str, body: Body) -> int:
        """Ask one replica how many prompt tokens a call would read."""
        return cast("int", await self._ask("count", operation, body))

    async def spent(self, hop: str) -> Usage | None:
        """Ask all replicas what a call has spent; one of them had it, unless that one is gone."""
        # Most callers are requests that are just being cancelled, and Serve cancels all calls of such a
        # request. So this call does not belong to the request.
        usages = await asyncio.create_task(self.ask_all("spent", hop), context=Context())
        return next((usage for usage in usages if usage is not None), None)

    async def _ask(self, method: str, *args: Any) -> Any:
        result = await answer_of(self._call.remote(method, *args))
        if isinstance(result, Fault):
            raise_fault(result)
        return result

    async def ask_all(self, method: str, *args: Any) -> list[Any]:
        """Call every replica at once and return all results. Raises the first fault."""
        results = await self._broadcast("engine_call", method, *args)
        for result in results:
            if isinstance(result, Fault):
                raise_fault(result)
        return results

    async def collect(self, cursors: Mapping[str, int], age: float, limit: int) -> list[Batch]:
        """Return hops that have ended, from every replica."""
        return await self._broadcast("engine_ended", dict(cursors), age, limit)

    async def addresses(self) -> list[Address | None]:
        """Return where each replica takes calls past the handle, if it does."""
        return await self._broadcast("engine_address")

    async def metrics(self) -> list[MetricsSnapshot]:
        """Return what the software of every replica counts."""
        return await self._broadcast("engine_metrics")

    async def _broadcast(self, method: str, *args: Any) -> list[Any]:
        limit = None if method == "engine_call" and args[0] in _LONG else _BROADCAST_SECONDS
        try:
            async with asyncio.timeout(limit):
                return list(await self._handle.broadcast(method, *args).results_async())
        except TimeoutError as error:
            raise EngineUnavailable(f"not every replica answered within {limit:g} s") from error
        except (RayError, RayServeException, RuntimeError) as error:
            raise EngineUnavailable(f"not every replica answered: {_first_line(error)}") from error
