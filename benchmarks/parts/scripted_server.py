"""The least that a server can do: answers with a script's times, straight from its own socket.

It stands where vLLM's own server stands when there is a model: what others add, they add to this.
"""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
import uvicorn
from starlette.types import Receive, Scope, Send

from benchmarks.parts.script import Script


class ScriptedServer:
    """An ASGI application that streams whatever it is asked."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._script.events(orjson.loads(body)):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main(
    port: Annotated[int, typer.Option(help="Where to listen, on loopback.")],
    time_to_first_token: Annotated[float, typer.Option(help="Seconds.")],
    inter_token: Annotated[float, typer.Option(help="Seconds.")],
) -> None:
    """Serve scripted answers until ended."""
    app = ScriptedServer(Script(time_to_first_token, inter_token))
    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
