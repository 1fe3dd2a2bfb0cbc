"""Making vLLM's request of a body: its prompt is counted by the same one that is generated from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ValidationError

from runtime.core.requests.sampling import UNASKED_CAP
from runtime.engines.port import Body
from runtime.errors import InterlockError, InvalidRequest
from runtime.serve.hosts.vllm.chat_members import admitted
from runtime.serve.hosts.vllm.prompt_limits import PromptLimits
from runtime.serve.hosts.vllm.refusals import about_messages, culprit, refused_by, refused_form

_SHORT = [{"role": "user", "content": "x"}]
"""A conversation with which a body is tried again to find what is wrong with it."""


class ChatRequests:
    """Makes requests for one model, of vLLM's ``ChatCompletionRequest``."""

    def __init__(
        self,
        form: Callable[..., Any],
        unasked: Callable[..., Any],
        model: str,
        limits: PromptLimits,
        variables: Collection[str],
    ) -> None:
        """``variables`` are the names that the model's chat template reads.

        ``unasked`` is the form of a request whose cap nobody asked for.
        """
        self._form = form
        self._unasked = unasked
        self._model = model
        self._limits = limits
        self._variables = frozenset(variables)

    def of(self, body: Body) -> Any:
        """Return vLLM's request. Raises InvalidRequest, in milliseconds, whatever the body is."""
        members = admitted(body, self._variables)
        if not members.get("messages"):
            raise InvalidRequest("messages must not be missing or empty", param="messages")
        self._limits.check(members)
        form = self._form
        if "max_tokens" not in members and UNASKED_CAP in body:
            form, members["max_tokens"] = self._unasked, body[UNASKED_CAP]
        # With running usage on every chunk: vLLM counts thoughts there alone.
        usage = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        try:
            return form(model=self._model, **members, **(usage if members.get("stream") else {}))
        except ValidationError as error:
            raise refused_form(error, members) from error
        except Exception as error:
            raise self._refused(error, members) from error

    def _refused(self, error: Exception, members: Mapping[str, Any]) -> InterlockError:
        """Return what vLLM's checks say. They are code for bodies of the right form, and trip over others."""
        refused = refused_by(error, members, default=None)
        if not isinstance(refused, InvalidRequest) or refused.param is not None:
            return refused
        with_short = {**members, "messages": _SHORT}
        if self._takes(with_short):
            return InvalidRequest(about_messages(members.get("messages")), param="messages")
        param = culprit(with_short, self._takes)
        return InvalidRequest(f"{param}: {refused}" if param else str(refused), param=param)

    def _takes(self, members: Mapping[str, Any]) -> bool:
        try:
            self._form(model=self._model, **members)
        except Exception:  # noqa: BLE001 - any error means no
            return False
        return True
