"""The names of spans, their attributes and events: all of them, and nowhere else.

``gen_ai.*`` are those of OpenTelemetry's conventions for GenAI, 0.1.0, which are in development: when they
are renamed, this page is. What they have no word for is ``interlock.*``, named and measured as in the
``interlock`` object of an answer.
"""

from __future__ import annotations

SCOPE = "interlock"
"""Who makes the spans; the service's name, too, if ``OTEL_SERVICE_NAME`` gives none."""

REQUEST = "invoke_workflow"
"""A request's operation. Its span is named by it and the chain, whose calls no agent plans."""

OPERATIONS = {"generate": "chat", "classify": "classify"}
"""A hop's operation. Its span is named by it and the engine's name in the model set."""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CHAIN = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
"""Seconds; of streams alone."""

ERROR = "error.type"
"""The error's class in ``runtime.errors``. Its message is left out: it may quote what the client wrote."""

REQUEST_ID = "interlock.request_id"
TENANT = "interlock.tenant"
"""The tenant's name. Keys and their ids are in no span."""
RELEASE = "interlock.release"
MODEL_SET = "interlock.model_set"
DEGRADED_FROM = "interlock.degraded_from"
"""The chain that the client had asked for; of requests alone that another one answered."""
OUTCOME = "interlock.outcome"
HOP = "interlock.hop"
"""The hop's id in the ledger."""
STEP = "interlock.step"
ENGINE = "interlock.engine"
QUEUE = "interlock.queue_ms"
FIRST_TOKEN = "interlock.ttft_ms"  # noqa: S105 - no secret

RETRY = "retry"
"""Event of a hop: its replica was lost, and another one is asked."""
