"""Requests that nobody would write: what is no JSON, what is deep or long, and what refusing it costs."""

import asyncio
import contextlib
import gc
import threading
import time

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.api import chat
from runtime.api.reading import MOST_WAITING
from runtime.core.requests.ask import Ask
from runtime.core.requests.chat_body import ChatBody
from runtime.core.requests.gate import IGNORED, ChatRequest, read_chat
from runtime.core.requests.json_body import MOST_DEPTH, MOST_VALUES, QUICK
from runtime.core.requests.messages import MOST_MESSAGES
from runtime.core.requests.sampling import OPENABLE
from runtime.errors import Overloaded, RequestError
from tests.request_shapes import ASKED, WEATHER
from tests.unit.core.test_request_gate import chain_of, outcome, raw, refusal


# JSON that means two things, or none, is refused: a name twice, numbers that JSON has not, half characters.
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model":"agent","model":"other","messages":[]}', "'model' twice"),
        (b'{"a":{"b":[{"c":1,"c":2}]}}', "'c' twice"),
        (b'{"a\\"b":1,"a\\"b":2}', "twice"),
        (b'{"temperature":NaN}', "not valid JSON"),
        (b'{"temperature":1e400}', "not valid JSON"),
        (b'{"temperature":-Infinity}', "not valid JSON"),
        (b'{"model":"a","messages":[{"role":"user","content":""}],"seed":1180591620717411303424}', "64 bits"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"", "not valid JSON"),
        (b'{"a', "not valid JSON"),
        (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", f"more than {MOST_DEPTH} deep"),
        (b'{"a":' + b"[" * 10**6, f"more than {MOST_VALUES} values"),
        (b'{"a":[' + b"0," * MOST_VALUES + b"0]}", f"more than {MOST_VALUES} values"),
        (b'{"a":[' + b'"",' * MOST_VALUES * 3 + b'""]}', f"more than {MOST_VALUES} values"),
    ],
)
def test_bad_json(body, says):
    refused = refusal(body)
    assert says in str(refused)
    assert refused.code == ("invalid_type" if b"seed" in body else "invalid_json")


# What only looks like structure, inside strings, counts for nothing.
def test_structure_in_strings():
    text = '[{,:"\\' * 20_000 + '\\"'
    assert read_chat(raw(messages=[{"role": "user", "content": text}])).ask.messages[0]["content"] == text


MIB4 = 4 * 2**20
HOSTILE = {
    "one text": raw(messages=[{"role": "user", "content": "x" * (MIB4 - 200)}]),
    "escapes": b'{"a":"' + b"\\n" * (MIB4 // 2 - 8) + b'"}',
    "backslashes": b'{"a":"' + b"\\\\" * (MIB4 // 2 - 8) + b'"}',
    "quotes": b'{"a":"' + b'\\"' * (MIB4 // 2 - 8) + b'"}',
    "empty arrays": b"[" + b"[]," * (MIB4 // 3 - 3) + b"[]]",
    "empty objects": b"[" + b"{}," * (MIB4 // 3 - 3) + b"{}]",
    "numbers": b"[" + b"0," * (MIB4 // 2 - 3) + b"0]",
    "strings": b"[" + b'"",' * (MIB4 // 3 - 3) + b'""]',
    "nested": b"[" * (MIB4 // 2) + b"]" * (MIB4 // 2),
    "one name": b"{" + b'"":0,' * (MIB4 // 5 - 3) + b'"":0}',
    "a number": b'{"a":' + b"9" * (MIB4 - 8) + b"}",
    "a long model": raw(model="a" * (MIB4 - 200)),
    "a long member": b'{"' + b"a" * (MIB4 - 200) + b'":1}',
    "100,000 messages": raw(messages=[{"role": "user", "content": ""}] * 100_000),
    "most messages": raw(messages=[{"role": "user", "content": "x" * 900}] * MOST_MESSAGES),
    "most parts": raw(messages=[{"role": "user", "content": ["x"] * (MOST_VALUES - 20)}]),
    "wrong biases": raw(logit_bias={str(n): "x" for n in range(MOST_VALUES - 20)}),
    "wrong token ids": raw(allowed_token_ids=["x"] * (MOST_VALUES - 20)),
    "wrong stops": raw(stop=[1] * (MOST_VALUES - 20)),
    "unknown tools": raw(tools=[{}] * (MOST_VALUES - 20)),
    "unknown members": orjson.dumps({f"x{n}": n for n in range(MOST_VALUES - 20)}),
    "twice among many": b"{" + b",".join(b'"x%d":0' % (n % 30_000) for n in range(MOST_VALUES - 20)) + b"}",
}


@pytest.fixture(scope="module")
def few_objects():
    """Keep the collector from what was there before: it would be measured, or collected before each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def collected(few_objects):
    """Collect what the tests before have left, not while a time is taken."""
    gc.collect()


# Whatever four megabytes say, it is known in a fraction of a second what to do with them, and said shortly.
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.usefixtures("collected")
def test_hostile_bodies_are_quick(body):
    begun = time.process_time()
    said = outcome(body)
    assert time.process_time() - begun < 0.5
    assert isinstance(said, Ask) or len(str(said)) < 400


# A body that is read at once holds nobody up: whatever so many bytes say takes milliseconds.
@pytest.mark.parametrize(
    "item", ["[]", "{}", "0", '""', '{"type":"text","text":""}', '{"role":"user","content":""}', "1.5e3"]
)
@pytest.mark.parametrize("where", ["messages", "content", "stop", "tools", "allowed_token_ids", "documents"])
@pytest.mark.usefixtures("collected")
def test_short_bodies_are_quick(item, where):
    items = ",".join([item] * ((QUICK - 200) // (len(item) + 1)))
    messages = f"[{items}]" if where == "messages" else '[{"role":"user","content":"x"}]'
    if where == "content":
        messages = f'[{{"role":"user","content":[{items}]}}]'
    more = f',"{where}":[{items}]' if where not in {"messages", "content"} else ""
    body = f'{{"model":"agent","messages":{messages}{more}}}'.encode()
    assert len(body) <= QUICK
    begun = time.process_time()
    outcome(body)
    assert time.process_time() - begun < 0.05


# A longer one is read beside the loop, which goes on meanwhile.
async def test_long_bodies_are_read_in_a_thread(monkeypatch):
    where = []
    monkeypatch.setattr(chat, "read_chat", lambda _: where.append(threading.current_thread().name))
    for size in (QUICK, QUICK + 1):
        with contextlib.suppress(AttributeError):  # nothing was asked
            await chat.read_chat_request(b"x" * size)
    assert where[0] == threading.current_thread().name
    assert where[1].startswith("reading")


# Of long bodies that come together so many are read as seconds allow; the next is told to come again.
async def test_long_bodies_take_turns(monkeypatch):
    go, long = threading.Event(), b"x" * (QUICK + 1)
    monkeypatch.setattr(chat, "read_chat", lambda _: go.wait() and ChatRequest(Ask("agent")))
    reads = [asyncio.create_task(chat.read_chat_request(long)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await chat.read_chat_request(long)
    go.set()
    assert {ask.chain for ask, _ in await asyncio.gather(*reads)} == {"agent"}
    ask, _ = await chat.read_chat_request(long)
    assert ask.chain == "agent"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    [*ChatBody.__annotations__, *IGNORED, "choices", "echo", "functions", "interlock_hop"]
)
_PART = st.sampled_from([{"type": "text", "text": "x"}, "x", {"type": "refusal"}]) | _JSON
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | _JSON},
    optional={
        "content": st.text(max_size=5) | st.lists(_PART, max_size=3) | _JSON,
        "tool_calls": st.lists(st.fixed_dictionaries({"function": _JSON, "id": _JSON}) | _JSON, max_size=2)
        | _JSON,
        "name": _JSON,
        "reasoning": _JSON,
    },
)


# Whatever is sent, it is taken or refused by name, never anything else; what is taken names what is known.
@given(
    st.dictionaries(_NAMES | st.text(max_size=5), _JSON, max_size=5), st.lists(_MESSAGE, max_size=3) | _JSON
)
@example({"modalities": 7}, ASKED)
@example({"tool_choice": {"type": "function", "function": {}}, "tools": [WEATHER]}, ASKED)
def test_anything(members, messages):
    try:
        body = orjson.dumps({"model": "agent", "messages": messages} | members)
    except TypeError:  # an integer beyond 64 bits, which this encoder cannot write
        return
    asked = outcome(body, chain_of(allow=OPENABLE))
    if isinstance(asked, RequestError):
        assert len(str(asked)) < 400
        assert asked.param is not None or asked.code == "invalid_json"
        return
    assert set(asked.params) <= set(ChatBody.__annotations__)
    assert None not in asked.params.values()
    for message in asked.messages:
        assert set(message) <= {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning"}


# Bytes that are no JSON at all are refused, too.
@given(st.binary(max_size=64) | st.text(alphabet='{}[]":,\\01e.-aN ', max_size=64).map(str.encode))
def test_any_bytes(body):
    with pytest.raises(RequestError):
        read_chat(body)
