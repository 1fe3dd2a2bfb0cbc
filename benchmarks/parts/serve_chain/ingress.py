"""What clients ask: it holds the chain, and the prompt between its steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.requests import Request
from starlette.responses import StreamingResponse

from benchmarks.parts.open_loop import SERVED_BY
from runtime.core.walk import templates

_DONE = "data: [DONE]\n\n"
_OWN = frozenset({"model", "messages"})
"""Members of a body that the ingress sets itself."""


class Ingress:
    """Asks the router, then the writer, and says in the last event which versions have answered."""

    def __init__(
        self,
        router: DeploymentHandle,
        writer: DeploymentHandle,
        steps: tuple[str, str],
        prompt: str,
        sampling: Mapping[str, Any],
        version: int,
    ) -> None:
        self._choose = router.options(method_name="choose")
        self._write = writer.options(method_name="write", stream=True)
        self._route, self._answer = steps
        self._prompt, self._sampling, self._version = prompt, dict(sampling), version

    async def __call__(self, request: Request) -> StreamingResponse:
        """Answer one chat completion, streamed."""
        body = orjson.loads(await request.body())
        choice, routed_by = await self._choose.remote(body["messages"][-1]["content"])
        system = templates.render(self._prompt, {"steps": {self._route: {"choice": choice}}})
        messages = [{"role": "system", "content": system}, *body["messages"]]
        params = {name: value for name, value in body.items() if name not in _OWN}
        answer = self._write.remote({**self._sampling, **params, "messages": messages})
        headers = {SERVED_BY: str(self._version)}
        return StreamingResponse(
            self._events(answer, routed_by), headers=headers, media_type="text/event-stream"
        )

    async def _events(self, answer: DeploymentResponseGenerator, routed_by: int) -> AsyncIterator[str]:
        async for written_by, events in answer:
            rest = events.removesuffix(_DONE)
            if rest:
                yield rest
            if rest != events:
                hops = [
                    {"step": self._route, "version": routed_by},
                    {"step": self._answer, "version": written_by},
                ]
                yield f"data: {orjson.dumps({'hops': hops}).decode()}\n\n{_DONE}"
