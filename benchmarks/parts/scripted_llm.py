"""A script in the place of vLLM behind ``ray.serve.llm``'s own server and ingress."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI
from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from benchmarks.parts.script import SCRIPT, Script
from benchmarks.parts.scripted_server import ScriptedServer


class ScriptedEngine(LLMEngine):  # type: ignore[misc]
    """Yields ready events as vLLM's engine does: one string per token."""

    def __init__(self, llm_config: LLMConfig) -> None:
        self._script = Script(**llm_config.experimental_configs[SCRIPT])

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    def routing_stats(self) -> dict[str, Any]:
        """Return nothing that would help to route."""
        return {}

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[str, None]:  # noqa: ARG002
        """Yield the events of an answer."""
        async for event in self._script.events({"model": request.model, "max_tokens": request.max_tokens}):
            yield event.decode()

    async def build_asgi_app(self) -> FastAPI:
        """Return what streams from the replica's own socket."""
        app = FastAPI()
        app.mount("/", ScriptedServer(self._script))
        return app

    async def resolve_lora(self, lora_model: Any) -> None:
        """Refuse: a script has no adapters."""
        raise NotImplementedError

    async def completions(self, *_: Any) -> AsyncGenerator[str, None]:
        """Refuse: the benchmark chats."""
        raise NotImplementedError
        yield ""

    embeddings = transcriptions = completions

    async def reset_prefix_cache(self) -> None:
        """Do nothing: there is no cache."""


class ScriptedLLMServer(LLMServer):  # type: ignore[misc]
    """``LLMServer`` as it is, over a script."""

    _default_engine_cls = ScriptedEngine
