"""What a chat request may contain: read once, refused by name, before anything is spent on it.

A client may send OpenAI's members and those of vLLM's sampling that concern its own answer. What steers the
engine or the chain is the operator's; a chain can open some of it (``allow``, ``template_variables``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runtime.core.declaration.nearest import nearest
from runtime.core.requests.ask import Ask
from runtime.core.requests.chat_body import ChatBody, checked
from runtime.core.requests.json_body import read_object, shown
from runtime.core.requests.sampling import OPENABLE, SetMembers, one_cap
from runtime.errors import InvalidRequest

IGNORED = frozenset(
    {
        *("metadata", "modalities", "moderation", "prediction", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "request_id", "safety_identifier", "service_tier", "session_id", "store"),
        *("user", "verbosity"),
    }
)
"""Members that have no meaning here, and whose absence no answer shows."""

_TAKEN = frozenset(ChatBody.__annotations__)

_INSTEAD = {
    "audio": "answers are text",
    "function_call": "write tool_choice",
    "functions": "write tools",
    "web_search_options": "models here do not search the web",
    "guided_json": "write response_format",
    "guided_choice": "write response_format",
    "guided_regex": "write response_format",
    "guided_grammar": "write response_format",
    "best_of": "write n",
    "logits_processors": "models here take none",
}
"""Members of OpenAI's API and of vLLM's that are not taken, and what to write instead."""

_OF_THE_OPERATOR = frozenset(SetMembers.__annotations__) | {
    *(
        "chat_template",
        "ec_transfer_params",
        "return_assistant_tokens_mask",
        "return_prompt_text",
        "return_token_offsets",
    ),
    "routed_experts_prompt_start",
}
"""Members that vLLM knows; those of them that are not taken are for the operator alone."""

_MOST_ENTRIES = 1024
"""Members of a member: each wrong one would be reported."""

_REPEATED = 2
"""How often a pattern has to come at least to be a repetition."""

_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


class ChatRequest(NamedTuple):
    """A chat completion as a client asks for it."""

    ask: Ask
    include_usage: bool = False
    """Whether its stream ends with a chunk that has the usage."""


def read_chat(raw: bytes) -> ChatRequest:
    """Return what a client asks for in ``raw``, the body of its request.

    Raises:
        InvalidRequest: it is no chat request, or has a member that no client may send; names the member.

    """
    body: Mapping[str, Any] = checked(_taken(read_object(raw)))
    members: dict[str, Any] = {
        name: value for name, value in body.items() if value is not None and value != {}
    }
    messages, chain = members.pop("messages"), members.pop("model")
    stream = members.pop("stream", False)
    options = members.pop("stream_options", None)
    if options is not None and not stream:
        raise _refused("stream_options", "is only for streams: send stream: true beside it")
    _check_together(members, stream=stream)
    usage = bool((options or {}).get("include_usage"))
    return ChatRequest(Ask(chain, messages, one_cap(members), stream), usage)


def _taken(body: dict[str, Any]) -> dict[str, Any]:
    """Return the members that mean something here. Raises InvalidRequest: a client may not send one."""
    taken = {}
    for name, value in body.items():
        if name in _TAKEN:
            if isinstance(value, dict) and len(value) > _MOST_ENTRIES:
                raise _refused(name, f"has {len(value)} entries; {_MOST_ENTRIES} at most")
            if name not in OPENABLE or not _is_default(name, value):
                taken[name] = value
        elif name not in IGNORED:
            _refuse_unless_empty(name, value)
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        raise _unsupported("modalities", "answers are text")
    return taken


def _refuse_unless_empty(name: str, value: Any) -> None:
    known = name in _INSTEAD or name in _OF_THE_OPERATOR
    if known and _is_default(name, value):
        return
    if name in _INSTEAD:
        raise _unsupported(name, f"is not taken; {_INSTEAD[name]}")
    if known:
        raise _unsupported(name, "is not for clients: it steers the engine")
    meant = nearest(name, sorted(_TAKEN))
    hint = f"; did you mean {meant!r}?" if meant else ""
    param = shown(name)
    raise InvalidRequest(f"{param!r}: there is no such member{hint}", param=param, code="unknown_parameter")


def _is_default(name: str, value: Any) -> bool:
    """Say whether a member has the value that it has if it is not sent."""
    if name == "add_generation_prompt":
        return value is None or value is True
    if name == "priority":
        return value is None or value == 0
    return value is None or value is False or (isinstance(value, dict | list) and not value)


def _check_together(members: Mapping[str, Any], *, stream: bool) -> None:
    """Check members that go together only, as OpenAI and vLLM do."""
    if not members.get("logprobs"):
        for name in ("top_logprobs", "logprob_token_ids"):
            if members.get(name):
                raise _refused(name, "is only for log probabilities: send logprobs: true beside it")
    _check_tools(members)
    _check_opened(members)
    if members.get("use_beam_search") and stream:
        raise _refused("stream", "an answer by beam search is not streamed")


def _check_opened(members: Mapping[str, Any]) -> None:
    """Check what a chain may open to its clients."""
    if members.get("use_beam_search") and members.get("logprob_token_ids"):
        raise _refused("logprob_token_ids", "does not go with use_beam_search")
    if members.get("continue_final_message") and members.get("add_generation_prompt", True):
        raise _refused("continue_final_message", "goes with add_generation_prompt: false only")
    form = members.get("structured_outputs")
    if form is not None and sum(form.get(name) is not None for name in _CONSTRAINTS) != 1:
        raise _refused("structured_outputs", f"must have one of: {', '.join(_CONSTRAINTS)}")
    repeated = members.get("repetition_detection")
    if repeated is not None:
        most, least = repeated.get("max_pattern_size", 0), repeated.get("min_pattern_size", 0)
        if not least <= most or most < 1 or repeated.get("min_count", 0) < _REPEATED:
            why = "needs max_pattern_size, a min_pattern_size that is no more, and a min_count of 2 or more"
            raise _refused("repetition_detection", why)


def _check_tools(members: Mapping[str, Any]) -> None:
    choice, tools = members.get("tool_choice"), members.get("tools")
    if choice is None or (choice == "none" and tools is None):
        return
    if tools is None:
        raise _refused("tool_choice", "is only for tools: send tools beside it")
    if isinstance(choice, dict):
        wanted, names = choice["function"]["name"], [tool["function"]["name"] for tool in tools]
        if wanted not in names:
            raise _refused("tool_choice.function.name", f"no tool is called {shown(wanted)!r}")


def _unsupported(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", param=param, code="unsupported_parameter")


def _refused(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")
