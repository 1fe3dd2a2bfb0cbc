"""vLLM as an engine, hosted by ``ray.serve.llm``: our subclass of ``LLMServer`` through ``server_cls``.

Importing this module imports vLLM (10 s and half a gigabyte), so it is imported where an engine runs
or is built, never by the gateway or the manager.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import ray
from jinja2 import TemplateError
from prometheus_client import REGISTRY
from pydantic import ValidationError
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest
from vllm.v1.metrics.loggers import PrometheusStatLogger

from runtime.clock import SystemClock
from runtime.core.chain import UNASKED_CAP
from runtime.core.ledger import EndedHop
from runtime.core.llm_config import llm_config_fields
from runtime.core.series import Family
from runtime.core.specs import VllmEngine as Spec
from runtime.core.usage import Usage
from runtime.engines.chunks import Choices, pack, run_once
from runtime.engines.port import TRACE, Body, Chunk, Classification, Embeddings, WarmResult
from runtime.engines.tally import TAG, Tally
from runtime.errors import EngineUnavailable, InvalidRequest
from runtime.observe.vllm_metrics import vllm_families
from runtime.serve.garbage import leave_startup_alone
from runtime.serve.load_board import telling
from runtime.serve.load_log import LoadLog
from runtime.serve.load_progress import Fetching
from runtime.serve.output_count import OutputCounts
from runtime.serve.replica import EngineReplica

_log = logging.getLogger(__name__)

_SSE, _DONE = "data: ", "[DONE]"
_CLIENT_FAULTS = range(400, 500)
_OURS = frozenset({TAG, TRACE, UNASKED_CAP})
"""Members of a body that vLLM has no word for."""


class _Unasked(ChatCompletionRequest):  # type: ignore[misc]  # Ray's has no types
    """A request whose cap nobody asked for: vLLM sets no room aside for it, and uses what there is."""

    def build_tok_params(self, model_config: Any) -> Any:
        """Return how the prompt is checked: as if there were no cap."""
        uncapped = self.model_copy(update={"max_tokens": None})
        return ChatCompletionRequest.build_tok_params(uncapped, model_config)


class VllmEngine:
    """The engine port over a started ``LLMServer``. Tokens are counted as vLLM reports them."""

    def __init__(self, server: LLMServer, model_id: str) -> None:
        self._server = server
        self._model_id = model_id
        self._tally = Tally(SystemClock())
        self._outputs = OutputCounts()
        client = server.engine._engine_client  # noqa: SLF001 - ray.serve.llm has no other way to it
        client.generate = self._outputs.counted(client.generate)

    async def load(self) -> None:
        """Do nothing: the server's constructor has started the engine."""

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield vLLM's answer; closing this aborts the request in the engine."""
        begun, request, choices = time.perf_counter(), self._request(body), Choices()
        with self._tally.call(body) as count, self._outputs.of(count) as request.request_id:
            answer = await self._server.chat(request, _headers(body))
            try:
                async for item in answer:
                    chunks = _chunks(item, count.usage, begun, choices)
                    if chunks:
                        count.usage = chunks[-1].usage
                        yield chunks
            finally:
                await answer.aclose()

    def _request(self, body: Body) -> ChatCompletionRequest:
        fields = {key: value for key, value in body.items() if value is not None and key not in _OURS}
        if body.get("stream"):
            # Running usage on every chunk: what was generated is known when a client goes away, too.
            fields["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        kind = ChatCompletionRequest
        if "max_tokens" not in fields and UNASKED_CAP in body:
            kind, fields["max_tokens"] = _Unasked, body[UNASKED_CAP]
        try:
            return kind(model=self._model_id, **fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            param = str(first["loc"][0]) if first["loc"] else None
            raise InvalidRequest(f"{param or 'the body'}: {first['msg']}", param=param) from error

    async def classify(self, body: Body) -> Classification:  # noqa: ARG002 - the port's form
        """Refuse: a generating engine has no vectors."""
        raise InvalidRequest("a generating engine cannot classify", param="model")

    async def embed(self, body: Body) -> Embeddings:  # noqa: ARG002 - the port's form
        """Refuse: a generating engine has no vectors."""
        raise InvalidRequest("a generating engine cannot embed", param="model")

    async def count(self, operation: str, body: Body) -> int:  # noqa: ARG002 - it can only generate
        """Return how many tokens the conversation has once it is in the model's chat template.

        ``LLMServer.tokenize`` looks for vLLM's tokenization under a name that vLLM 0.29 does not have.
        """
        tokenizer = self._server.engine._engine_client.renderer.tokenizer  # noqa: SLF001 - nobody else has it
        asked = {"tools": body.get("tools"), **(body.get("chat_template_kwargs") or {})}
        known = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        try:
            tokens = await asyncio.to_thread(
                tokenizer.apply_chat_template, list(body["messages"]), **{**asked, **known}
            )
        except (ValueError, TypeError, KeyError, TemplateError) as error:
            raise InvalidRequest(
                f"the messages do not fit into the model's chat template: {error}", param="messages"
            ) from error
        return len(tokens)

    async def warm(self, operation: str, body: Body) -> WarmResult:
        """Run one call to its end."""
        return await run_once(self, operation, body)

    async def ping(self) -> None:
        """Return if vLLM's engine process is well."""
        try:
            await self._server.check_health()
        except Exception as error:
            raise EngineUnavailable(f"vLLM says that it is not well: {error}") from error

    async def sleep(self) -> None:
        """Give the KV cache back and move the weights to main memory; captured graphs stay. Only while idle.

        vLLM 0.29 cannot give the cache alone back: a partial wake leaves its scheduler paused.
        """
        await self._server.sleep(level=1)

    async def wake(self) -> None:
        """Bring the weights back and take the KV cache again. One that is awake stays so."""
        await self._server.wakeup()
        if await self._server.is_sleeping():
            raise EngineUnavailable("vLLM still sleeps after its wake")

    async def idle(self) -> bool:
        """Say whether neither a call nor vLLM itself has anything in flight."""
        client = getattr(self._server.engine, "_engine_client", None)
        unfinished = client.output_processor.get_num_unfinished_requests() if client is not None else 0
        return self._tally.in_flight == 0 and unfinished == 0

    async def metered(self) -> Usage:
        """Return every token so far."""
        return self._tally.usage

    async def spent(self, hop: str) -> Usage | None:
        """Return what a call has spent, once it has ended."""
        return await self._tally.spent(hop)

    async def ended(self, after: int, age: float, limit: int) -> list[EndedHop]:
        """Return calls that have ended."""
        return self._tally.ended(after, age, limit)

    async def metrics(self) -> list[Family]:
        """Return vLLM's own metrics. In a thread: they are some hundred series."""
        return await asyncio.to_thread(vllm_families, REGISTRY)

    async def unload(self) -> None:
        """Do nothing: the replica's end is the engine's."""


def _headers(body: Body) -> RawRequestInfo | None:
    """Return the trace context as vLLM takes it, in headers of a request that it takes to be HTTP."""
    context = body.get(TRACE)
    return RawRequestInfo(headers=dict(context)) if context else None


def _answers(item: Any) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in what ``LLMServer.chat`` yields: a list of events, or one response."""
    for part in item if isinstance(item, list) else [item]:
        if not isinstance(part, str):
            yield part.model_dump(mode="json")
            continue
        for event in part.split("\n\n"):
            text = event.removeprefix(_SSE)
            if text and text != _DONE:
                yield orjson.loads(text)


def _chunks(item: Any, known: Usage, begun: float, choices: Choices) -> list[Chunk]:
    chunks = []
    for answer in _answers(item):
        if answer.get("error"):
            raise _refusal(answer["error"])
        chunks.append(_chunk(answer, known, begun, choices))
        known = chunks[-1].usage
    return chunks


def _chunk(answer: Mapping[str, Any], known: Usage, begun: float, choices: Choices) -> Chunk:
    usage, elapsed = _usage(answer, known, choices), time.perf_counter() - begun
    if not answer.get("choices"):
        return Chunk(b"", usage, elapsed)
    return pack(answer, usage, elapsed)


def _usage(answer: Mapping[str, Any], known: Usage, choices: Choices) -> Usage:
    usage = answer.get("usage")
    if not usage:
        return known
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        usage["prompt_tokens"],
        choices.total(answer, usage.get("completion_tokens") or 0),
        prompt.get("cached_tokens") or 0,
        completion.get("reasoning_tokens") or 0,
    )


def _refusal(error: Mapping[str, Any]) -> InvalidRequest | EngineUnavailable:
    message, code = str(error.get("message")), error.get("code")
    if not isinstance(code, int) or code not in _CLIENT_FAULTS:
        return EngineUnavailable(f"vLLM failed: {message}")
    too_long = "context length" in message or "max_model_len" in message
    if too_long:
        return InvalidRequest(message, param="messages", code="context_length_exceeded")
    return InvalidRequest(message, param=error.get("param"))


class VllmEngineReplica(EngineReplica, LLMServer):  # type: ignore[misc]
    """``LLMServer`` with the engine port beside its own methods."""

    async def __init__(self, llm_config: LLMConfig, **kwargs: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        with LoadLog(_fetching(llm_config)) as log, telling(log.stage):
            await LLMServer.__init__(self, llm_config, **kwargs)
        _count_here(self.engine._engine_client)  # noqa: SLF001 - nobody else has it
        self._hosted = VllmEngine(self, llm_config.model_id)
        leave_startup_alone()


def _count_here(client: Any) -> None:
    """Let vLLM count in this process's registry, too: ray.serve.llm has it count for Ray's agent only."""
    loggers = client.logger_manager
    if loggers is None:  # `disable_log_stats`
        return
    if not any(type(logger) is PrometheusStatLogger for logger in loggers.stat_loggers):
        loggers.stat_loggers.append(PrometheusStatLogger(client.vllm_config, loggers.engine_indexes))


def _fetching(config: LLMConfig) -> Fetching:
    """Return who brings the weights to this node, as ray.serve.llm reads where they are."""
    source = config.model_loading_config.model_source or config.model_id
    if not isinstance(source, str) or "://" in source:
        return Fetching.BEFORE_VLLM
    return Fetching.NOBODY if Path(source).is_dir() else Fetching.BY_VLLM


def build(spec: Spec, location: str | None) -> Application:
    """Return the application of a vLLM engine; ``location`` is where its weights were found."""
    fields = llm_config_fields(spec, location, ray.get_runtime_context().runtime_env)
    config = LLMConfig(server_cls=VllmEngineReplica, **fields)
    return build_llm_deployment(config, name_prefix="engine:")
