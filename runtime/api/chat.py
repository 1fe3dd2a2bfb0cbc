"""The form of ``POST /v1/chat/completions``: OpenAI's chat completion, whole or as server-sent events.

An engine's chunk arrives as ready JSON members; here it is wrapped, not parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from runtime.api.errors import body_of
from runtime.api.form import AnswerHead, AnswerTrailer, NewForm
from runtime.api.reading import parsed
from runtime.core.requests.ask import Ask
from runtime.core.requests.gate import read_chat
from runtime.engines.chunks import one_line
from runtime.engines.port import Chunk
from runtime.errors import InterlockError

_END = b"}\n\n"
_DONE = b"data: [DONE]\n\n"


async def read_chat_request(raw: bytes) -> tuple[Ask, NewForm]:
    """Return what the body of a chat request asks, and the form of its answer.

    Raises:
        InvalidRequest: it is no chat request, or says what no client may; names the member.
        Overloaded: too many that are as long wait to be read.

    """
    request = await parsed(raw, read_chat)
    return request.ask, partial(ChatForm, stream=request.ask.stream, include_usage=request.include_usage)


class ChatForm:
    """A chat completion.

    The ``interlock`` object goes into the last chunk of a stream: the usage chunk if the client asked for
    one, otherwise the one with the finish reason, which is held back until the stream has ended. If the
    stream breaks, the error's event has it.
    """

    def __init__(self, head: AnswerHead, *, stream: bool, include_usage: bool) -> None:
        opening = {
            "id": f"chatcmpl-{head.request_id}",
            "object": "chat.completion.chunk" if stream else "chat.completion",
            "created": head.created,
            "model": head.chain,
        }
        self._opening = (b"data: " if stream else b"") + one_line(orjson.dumps(opening))[:-1] + b","
        """The start of each object, up to where the engine's members go."""
        self._include_usage = include_usage
        self._held: list[Chunk] = []
        """Chunks that may turn out to be the last."""

    def body(self, members: bytes, trailer: AnswerTrailer) -> bytes:
        """Return the completion."""
        ours = {"usage": trailer.usage.as_openai(), "interlock": trailer.as_json(streamed=False)}
        return self._opening + members + b"," + orjson.dumps(ours)[1:]

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the chunks that are not the last ones, each as an event."""
        coming = [chunk for chunk in (*self._held, *chunks) if chunk.members]
        ready = len(coming)
        while ready and coming[ready - 1].finish:
            ready -= 1
        self._held = coming[ready:]
        return self._wrapped(coming[:ready])

    def last_events(self, trailer: AnswerTrailer) -> bytes:
        """Return the chunks that were held back, and the end."""
        held = self._held
        ours: dict[str, Any] = {"interlock": trailer.as_json(streamed=True)}
        if self._include_usage:
            ours = {"choices": [], "usage": trailer.usage.as_openai(), **ours}
            last = one_line(orjson.dumps(ours))[1:]
        else:
            members = held.pop().members if held else b'"choices":[]'
            last = members + b"," + one_line(orjson.dumps(ours))[1:]
        return self._wrapped(held) + self._opening + last + b"\n\n" + _DONE

    def error_events(self, error: InterlockError, trailer: AnswerTrailer) -> bytes:
        """Return the error, in OpenAI's shape, and the end."""
        fields = body_of(error) | {"interlock": trailer.as_json(streamed=True)}
        return b"data: " + one_line(orjson.dumps(fields)) + b"\n\n" + _DONE

    def _wrapped(self, chunks: Sequence[Chunk]) -> bytes:
        opening = self._opening
        return b"".join(opening + chunk.members + _END for chunk in chunks)
