"""A bare Serve handle call, from one deployment to another: what a hop of a chain is held against.

``build`` is what ``import_path`` of a Serve config names. The called deployment waits for as long as the
scripted engine does, and says how long that really was; what is measured is the rest.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

BODY = {"messages": [{"role": "user", "content": "word " * 90}], "max_tokens": 1, "stream": False}
"""About 500 bytes, as the hops send."""


class Callee:
    """Waits and answers, as an engine does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def call(self, body: dict[str, Any]) -> tuple[str, float]:
        """Return a text as long as the request's, and how many seconds it took here."""
        begun = time.perf_counter()
        await asyncio.sleep(self._seconds)
        return body["messages"][0]["content"], time.perf_counter() - begun


class Caller:
    """Calls in closed loops when it is asked over HTTP."""

    def __init__(self, callee: DeploymentHandle) -> None:
        self._call = callee.options(method_name="call")

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Return the milliseconds of each call beyond the callee's own, of ``at_once`` loops together."""
        at_once, seconds = int(request.query_params["at_once"]), float(request.query_params["seconds"])
        end, samples = time.perf_counter() + seconds, list[float]()
        await asyncio.gather(*(self._loop(end, samples) for _ in range(at_once)))
        return {"beyond_ms": samples}

    async def _loop(self, end: float, samples: list[float]) -> None:
        while (begun := time.perf_counter()) < end:
            _, there = await self._call.remote(BODY)
            samples.append((time.perf_counter() - begun - there) * 1000.0)


def build(args: dict[str, Any]) -> Application:
    """Return both deployments; ``engine_ms`` of ``args`` is how long a call takes there."""
    options: dict[str, Any] = {"max_ongoing_requests": 10_000, "ray_actor_options": {"num_cpus": 0}}
    callee = serve.deployment(Callee, name="Callee", **options).bind(float(args["engine_ms"]) / 1000.0)
    return serve.deployment(Caller, name="Caller", **options).bind(callee)
