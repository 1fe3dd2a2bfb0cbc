"""The second step: ``ray.serve.llm``'s server of a model. Importing this imports vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest


class Writer(LLMServer):  # type: ignore[misc]
    """``LLMServer`` that says which version of it answers."""

    async def __init__(self, llm_config: LLMConfig, version: int) -> None:  # type: ignore[misc]  # Serve awaits it
        await LLMServer.__init__(self, llm_config)
        self._version = version

    async def write(self, body: Mapping[str, Any]) -> AsyncIterator[tuple[int, str]]:
        """Yield ready events as they come, each time with the version."""
        request = ChatCompletionRequest(model=self._llm_config.model_id, **body)
        async for events in await self.chat(request):
            yield self._version, "".join(events)
