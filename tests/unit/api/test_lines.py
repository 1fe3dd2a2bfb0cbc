"""Events are lines to every client: nothing that ends a line by Unicode goes out as it is."""

import orjson
import pytest

from runtime.core.metering.usage import NOTHING
from runtime.engines.chunks import one_line, pack, unpack
from runtime.errors import EngineUnavailable
from tests.unit.api.test_api import events, post, serving

ENDS = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee\r\n"


# An engine's chunk is one line, and says what it said.
@pytest.mark.parametrize("text", [ENDS, "plain", "grüße €\U0001f600", "\u2027\u202a\x84\x86"])
def test_a_chunk_is_one_line(text):
    answer = {"choices": [{"index": 0, "delta": {"content": text}}]}
    chunk = pack(answer, NOTHING, 0.0)
    assert len(chunk.members.decode().splitlines()) == 1
    assert unpack(chunk)["choices"][0]["delta"]["content"] == text
    assert orjson.loads(one_line(orjson.dumps({text: text}))) == {text: text}


# A stream's events are the lines that they are sent as, also to whoever splits them by Unicode.
async def test_a_stream_is_lines():
    async with serving(writer={"reply": ENDS, "tokens": 3}) as (_, client):
        answer = await post(client, stream=True)
        lines = answer.text.splitlines()
        assert {line[:6] for line in lines if line} == {"data: "}
        assert len([line for line in lines if line]) == len(events(answer)) + 1
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events(answer))
        assert "\u2028" in text


# An error in mid-stream quotes what clients and engines say, in one line.
async def test_an_error_is_one_line():
    async with serving() as (world, client):
        chunks = world.gateways[0].follower.routing.live.clients["writer"].generate

        async def breaks(body):
            answer = chunks(body)
            yield await anext(answer)
            await answer.aclose()
            raise EngineUnavailable(ENDS)

        world.gateways[0].follower.routing.live.clients["writer"].generate = breaks
        answer = await post(client, stream=True)
        assert {line[:6] for line in answer.text.splitlines() if line} == {"data: "}
        assert "\u2028" in events(answer)[-1]["error"]["message"]
