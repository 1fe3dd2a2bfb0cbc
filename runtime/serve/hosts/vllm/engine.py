"""vLLM as an engine, hosted by ``ray.serve.llm``: our subclass of ``LLMServer`` through ``server_cls``.

Importing this module imports vLLM (10 s and half a gigabyte), so it is imported where an engine runs
or is built, never by the gateway or the manager.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import ray
from prometheus_client import REGISTRY
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest
from vllm.exceptions import GenerationError
from vllm.renderers.hf import HfRenderer, _cached_resolve_chat_template_kwargs, resolve_chat_template
from vllm.v1.metrics.loggers import PrometheusStatLogger

from runtime.clock import SystemClock
from runtime.core.metering.ledger import EndedHop
from runtime.core.metering.series import Family
from runtime.core.metering.usage import Usage
from runtime.core.model_set.engines import VllmEngineSpec
from runtime.core.model_set.llm_config import llm_config_fields
from runtime.engines.chunks import pack, run_once
from runtime.engines.port import TRACE, Body, Chunk, Classification, Embeddings, WarmResult
from runtime.engines.tally import Tally
from runtime.errors import EngineUnavailable, InterlockError, InvalidRequest
from runtime.observe.vllm_metrics import uncounted, vllm_families
from runtime.serve.garbage import leave_startup_alone
from runtime.serve.hosts.replica import EngineReplica
from runtime.serve.hosts.vllm.chat_request import ChatRequests
from runtime.serve.hosts.vllm.output_count import CallOutputs, OutputCounts
from runtime.serve.hosts.vllm.prompt_limits import PromptLimits
from runtime.serve.hosts.vllm.refusals import refused_by, refused_with
from runtime.serve.hosts.vllm.renderings import Renderings
from runtime.serve.loading.board import reporting
from runtime.serve.loading.log import LoadLog
from runtime.serve.loading.progress import Fetching

_log = logging.getLogger(__name__)

_SSE, _DONE = "data: ", "[DONE]"
_CLIENT_FAULTS = range(400, 500)
_ANY = -1
"""What vLLM means by a ``max_logprobs`` without limit."""
_SWITCHES = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
"""What prompts of models without a Jinja template may be made by."""


class _Unasked(ChatCompletionRequest):  # type: ignore[misc]  # Ray's has no types
    """A request whose cap nobody asked for: vLLM sets no room aside for it, and uses what there is."""

    def build_tok_params(self, model_config: Any) -> Any:
        """Return how the prompt is checked: as if there were no cap."""
        uncapped = self.model_copy(update={"max_tokens": None})
        return ChatCompletionRequest.build_tok_params(uncapped, model_config)


class VllmEngine:
    """The engine port over a started ``LLMServer``. Tokens are counted as vLLM counts them."""

    def __init__(self, server: LLMServer, model_id: str) -> None:
        self._server = server
        self._tally = Tally(SystemClock())
        client, chat = server.engine._engine_client, server.engine._oai_serving_chat  # noqa: SLF001 - no other way
        self._client, self._chat = client, chat
        self._outputs = OutputCounts(client.output_processor, client.engine_core.abort_requests_async)
        client.generate = _checked(client.generate, client.input_processor)
        chat.beam_search = _checked_beams(chat.beam_search, chat.model_config.max_logprobs)
        renderer = chat.online_renderer
        thread = client.renderer._executor  # noqa: SLF001 - as above
        self._renderings = renderer.render_chat = Renderings(renderer.render_chat, thread, SystemClock())
        limits = PromptLimits(chat.model_config.max_model_len, client.renderer.tokenizer.max_chars_per_token)
        self._requests = ChatRequests(
            ChatCompletionRequest, _Unasked, model_id, limits, _template_variables(chat)
        )

    async def load(self) -> None:
        """Do nothing: the server's constructor has started the engine."""

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        """Yield vLLM's answer; closing this aborts the request in the engine."""
        begun, request = time.perf_counter(), self._requests.of(body)
        with self._tally.call(body) as count:
            async with self._outputs.of(count) as call:
                request.request_id = call.request
                answer = await self._server.chat(request, _headers(body))
                try:
                    async for item in answer:
                        chunks = _chunks(item, call, begun, body)
                        if chunks:
                            yield chunks
                except InterlockError:
                    raise
                except Exception as error:
                    raise refused_by(error, body, generated=call.usage().completion) from error
                finally:
                    await answer.aclose()

    async def classify(self, body: Body) -> Classification:  # noqa: ARG002 - the port's form
        """Refuse: a generating engine has no vectors."""
        raise InvalidRequest("a generating engine cannot classify", param="model")

    async def embed(self, body: Body) -> Embeddings:  # noqa: ARG002 - the port's form
        """Refuse: a generating engine has no vectors."""
        raise InvalidRequest("a generating engine cannot embed", param="model")

    async def count(self, operation: str, body: Body) -> int:  # noqa: ARG002 - it can only generate
        """Return how many tokens the prompt has that vLLM would make of this body, by the same rendering."""
        request = self._requests.of(body)
        try:
            rendered = await self._renderings(request, skip_mm_cache=True)
        except InterlockError:
            raise
        except Exception as error:
            raise refused_by(error, body) from error
        if not isinstance(rendered, tuple):
            raise _refusal(rendered.error.model_dump(), body)
        _, (prompt,) = rendered
        return int(self._chat._extract_prompt_len(prompt))  # noqa: SLF001 - nobody else has it

    async def warm(self, operation: str, body: Body) -> WarmResult:
        """Run one call to its end."""
        return await run_once(self, operation, body)

    def check(self) -> None:
        """Return if the thread that makes prompts does its work. Raises EngineUnavailable."""
        self._renderings.check()

    async def ping(self) -> None:
        """Return if vLLM's engine process is well, and the thread that makes prompts."""
        self.check()
        try:
            await self._server.check_health()
        except Exception as error:
            raise EngineUnavailable(f"vLLM reports that it is unhealthy: {error}") from error

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
        unfinished = self._client.output_processor.get_num_unfinished_requests()
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
        """Return vLLM's own metrics, and how many tokens are in them that no call has counted."""
        # In a thread: they are some hundred series.
        families = await asyncio.to_thread(vllm_families, REGISTRY)
        return [*families, *uncounted(families, self._tally.usage)]

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


def _chunks(item: Any, call: CallOutputs, begun: float, body: Body) -> list[Chunk]:
    chunks = []
    for answer in _answers(item):
        if answer.get("error"):
            _go_on_being_cancelled()
            raise _refusal(answer["error"], body, generated=call.usage().completion)
        usage, elapsed = _usage(answer, call), time.perf_counter() - begun
        chunks.append(pack(answer, usage, elapsed) if answer.get("choices") else Chunk(b"", usage, elapsed))
    return chunks


def _go_on_being_cancelled() -> None:
    """Raise CancelledError if this call is cancelled: vLLM answers that its client has gone."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _usage(answer: Mapping[str, Any], call: CallOutputs) -> Usage:
    details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
    call.reasoning = details.get("reasoning_tokens") or call.reasoning
    return call.usage()


def _refusal(error: Mapping[str, Any], body: Body, *, generated: int = 0) -> InterlockError:
    """Return the error for what vLLM reports in the form of an HTTP error."""
    message, code = str(error.get("message")), error.get("code")
    if not isinstance(code, int) or code not in _CLIENT_FAULTS:
        return refused_by(GenerationError(message), body, generated=generated)
    return refused_with(message, error.get("param"), body)


def _checked(generate: Callable[..., Any], processor: Any) -> Callable[..., Any]:
    """Return vLLM's ``generate`` with its parameters checked when it is called, not when an answer has begun.

    Of a stream whose answer has begun vLLM would log it with a stack, and call it an error of its own.
    """

    def generate_checked(prompt: Any, params: Any, request_id: str, **options: Any) -> Any:
        processor._validate_params(params, ("generate",))  # noqa: SLF001 - what `generate` does itself, later
        return generate(prompt, params, request_id, **options)

    return generate_checked


def _checked_beams(search: Callable[..., Any], most: int) -> Callable[..., Any]:
    """Return vLLM's ``beam_search`` with its width checked when it is called, as for ``_checked``."""

    def search_checked(prompt: Any, request_id: str, params: Any, **options: Any) -> Any:
        if most != _ANY and 2 * params.beam_width > most:
            raise InvalidRequest(f"n must be at most {most // 2} for a beam search", param="n")
        return search(prompt=prompt, request_id=request_id, params=params, **options)

    return search_checked


def _template_variables(chat: Any) -> frozenset[str]:
    """Return the names that the model's chat template reads."""
    if not isinstance(chat.renderer, HfRenderer):
        return _SWITCHES
    given, config = chat.chat_template, chat.model_config
    template = resolve_chat_template(chat.renderer.tokenizer, given, tools=None, model_config=config)
    return frozenset(_cached_resolve_chat_template_kwargs(template)) if template else frozenset()


class VllmEngineReplica(EngineReplica, LLMServer):  # type: ignore[misc]
    """``LLMServer`` with the engine port beside its own methods."""

    async def __init__(self, llm_config: LLMConfig, **kwargs: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        with LoadLog(_fetching(llm_config)) as log, reporting(log.stage):
            await LLMServer.__init__(self, llm_config, **kwargs)
        _count_here(self.engine._engine_client)  # noqa: SLF001 - nobody else has it
        self._hosted = self._engine = VllmEngine(self, llm_config.model_id)
        logging.getLogger("vllm.renderers.hf").addFilter(_is_no_refusal)
        leave_startup_alone()

    async def check_health(self) -> None:
        """Return if vLLM is well, and the thread that makes prompts. Serve replaces this replica if not."""
        await super().check_health()
        if hasattr(self, "_engine"):
            self._engine.check()


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Say whether vLLM logs something else than that a template has refused messages: it adds a stack."""
    return not record.getMessage().startswith("An error occurred in `transformers` while applying chat")


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


def build(spec: VllmEngineSpec, location: str | None) -> Application:
    """Return the application of a vLLM engine; ``location`` is where its weights were found."""
    fields = llm_config_fields(spec, location, ray.get_runtime_context().runtime_env)
    config = LLMConfig(server_cls=VllmEngineReplica, **fields)
    return build_llm_deployment(config, name_prefix="engine:")
