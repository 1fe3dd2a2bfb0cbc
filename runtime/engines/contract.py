"""What every engine promises, as checks that fakes and real engines both pass.

A check takes an engine that is loaded and raises ``AssertionError`` with the promise it breaks.
``GENERATING`` and ``ENCODING`` are the checks of the two kinds.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from runtime.core.metering.ledger import HopTag
from runtime.core.requests.sampling import UNASKED_CAP
from runtime.engines.chunks import text_of, unpack
from runtime.engines.port import Chunk, Engine
from runtime.engines.tally import TAG
from runtime.errors import InvalidRequest

_BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say something about railways."}],
    "max_tokens": 6,
    "temperature": 0.0,
    "ignore_eos": True,
}
_CHOICES = {"money": ["refund my invoice", "charged twice"], "travel": ["book a train", "a flight to Rome"]}


def _require(promise: str, *, holds: bool) -> None:
    if not holds:
        raise AssertionError(promise)


async def _collect(engine: Engine, body: dict[str, Any]) -> list[Chunk]:
    return [chunk async for chunks in engine.generate(body) for chunk in chunks]


async def streams_deltas_with_running_usage(engine: Engine) -> None:
    """A streamed answer comes in several chunks whose usage only grows, the last one exact."""
    chunks = await _collect(engine, {**_BODY, "stream": True})
    counts = [chunk.usage.completion for chunk in chunks]
    _require("several chunks", holds=len(chunks) > 1)
    _require("usage only grows", holds=counts == sorted(counts))
    _require("the last usage is exact", holds=counts[-1] == _BODY["max_tokens"])
    _require("the prompt is counted", holds=chunks[-1].usage.prompt > 0)
    _require(
        "chunks carry deltas",
        holds=any("delta" in c for chunk in chunks for c in unpack(chunk).get("choices", ())),
    )


async def marks_the_finish(engine: Engine) -> None:
    """The chunk with the finish reason is marked, and no other."""
    chunks = await _collect(engine, {**_BODY, "stream": True})
    marked = [chunk for chunk in chunks if chunk.finish]
    reasons = [c for chunk in chunks for c in unpack(chunk).get("choices", ()) if c.get("finish_reason")]
    _require("exactly one chunk finishes", holds=len(marked) == len(reasons) == 1)


async def answers_in_one_chunk(engine: Engine) -> None:
    """Without ``stream`` there is one chunk with the whole message, and the same count."""
    chunks = await _collect(engine, {**_BODY, "stream": False})
    _require("one chunk", holds=len(chunks) == 1)
    _require("it has text", holds=bool(text_of(chunks[0])))
    _require("usage is exact", holds=chunks[0].usage.completion == _BODY["max_tokens"])


async def refuses_a_wrong_type_by_name(engine: Engine) -> None:
    """A parameter of the wrong type is refused with its name, before anything is generated."""
    before = await engine.metered()
    try:
        await _collect(engine, {**_BODY, "temperature": "hot"})
    except InvalidRequest as error:
        _require("the field is named", holds=error.param == "temperature")
    else:
        _require("a wrong type is refused", holds=False)
    _require("nothing was generated", holds=(await engine.metered()).completion == before.completion)


async def cuts_a_prompt(engine: Engine) -> None:
    """With ``truncate_prompt_tokens`` a prompt has just so many: warm-up reads exact lengths by it."""
    content = " ".join(["railway"] * 64)
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, "truncate_prompt_tokens": 48}
    _require("it is counted as it is cut", holds=await engine.count("generate", body) == 48)  # noqa: PLR2004
    chunks = await _collect(engine, {**body, "stream": False})
    _require("the prompt is cut", holds=chunks[-1].usage.prompt == body["truncate_prompt_tokens"])


async def refuses_an_overlong_prompt(engine: Engine) -> None:
    """A prompt over the context length is refused as the messages' fault."""
    messages = [{"role": "user", "content": "railway " * 9000}]
    try:
        await _collect(engine, {**_BODY, "messages": messages})
    except InvalidRequest as error:
        _require("messages are named", holds=error.param == "messages")
    else:
        _require("an over-long prompt is refused", holds=False)


async def applies_a_default_cap(engine: Engine) -> None:
    """A default cap makes no prompt too long that fits; a cap that the client set does."""
    most = 10_000_000
    body = {"messages": _BODY["messages"], "stream": True}
    answer = engine.generate({**body, UNASKED_CAP: most})
    _require("it is answered", holds=bool(await anext(answer, None)))
    await answer.aclose()
    chunks = await _collect(engine, {**body, UNASKED_CAP: 2})
    _require("it is a cap", holds=chunks[-1].usage.completion <= 2)  # noqa: PLR2004 - as above
    try:
        await _collect(engine, {**body, "max_tokens": most})
    except InvalidRequest as error:
        _require("what is too long is named", holds=error.code == "context_length_exceeded")
    else:
        _require("what the context has no room for is refused", holds=False)


async def aborts_when_closed(engine: Engine) -> None:
    """Closing the generator aborts the work: soon nothing is in flight."""
    answer = engine.generate({**_BODY, "stream": True, "max_tokens": 500})
    async for _ in answer:
        break
    _require("busy while an answer is open", holds=not await engine.idle())
    await answer.aclose()
    await _until_idle(engine)


async def meters_what_answers_report(engine: Engine) -> None:
    """The engine's own count grows by exactly the usage that the answers report."""
    before = await engine.metered()
    chunks = await _collect(engine, {**_BODY, "stream": True})
    single = await _collect(engine, {**_BODY, "stream": False})
    after = await engine.metered()
    reported = chunks[-1].usage.plus(single[-1].usage)
    _require(
        f"metered {after} less {before} is what the answers report, {reported}",
        holds=(after.prompt - before.prompt, after.completion - before.completion)
        == (reported.prompt, reported.completion),
    )


async def warms_a_generation(engine: Engine) -> None:
    """A warm-up call runs to its end and gives what the next step needs."""
    result = await engine.warm("generate", _BODY)
    _require("text for the next step", holds=bool(result.result["text"]))
    _require("its tokens are counted", holds=result.usage.completion == _BODY["max_tokens"])


async def reports_what_a_cancelled_call_spent(engine: Engine) -> None:
    """A call that is broken off is counted under its id, by the engine's own count, and listed once."""
    before = await engine.metered()
    body = {**_BODY, "stream": True, "max_tokens": 500, TAG: HopTag("broken-off", step="answer")}
    answer = engine.generate(body)
    async for _ in answer:
        break
    await answer.aclose()
    spent = await engine.spent("broken-off")
    after = await engine.metered()
    _require("it is known", holds=spent is not None and spent.prompt > 0 and spent.completion > 0)
    grown = (after.prompt - before.prompt, after.completion - before.completion)
    _require("it is what was metered", holds=spent is not None and grown == spent[:2])
    ended = await engine.ended(0, 0.0, 10_000)
    _require("it is listed", holds=[e.usage for e in ended if e.tag.hop == "broken-off"] == [spent])
    _require("what is kept is forgotten", holds=await engine.ended(ended[-1].number, 0.0, 10_000) == [])
    _require("another is not known", holds=await engine.spent("never-came") is None)


async def counts_every_choice_of_a_broken_off_call(engine: Engine) -> None:
    """Of an answer of several choices each one's tokens are counted, sent whole or not, ended or not."""
    several = {**_BODY, "n": 2, "temperature": 1.0}
    single = await _collect(engine, {**several, "stream": False})
    both = 2 * _BODY["max_tokens"]
    _require("both choices are counted", holds=single[-1].usage.completion == both)
    streamed = await _collect(engine, {**several, "stream": True})
    _require("also where they are streamed", holds=streamed[-1].usage.completion == both)
    for stream in (True, False):
        before, hop = await engine.metered(), f"several-{stream}"
        body = {**several, "stream": stream, "max_tokens": 500, TAG: HopTag(hop, step="answer")}
        answer = asyncio.create_task(_collect(engine, body))
        async with asyncio.timeout(10):
            while (await engine.metered()).completion - before.completion < 2 * 2:
                await asyncio.sleep(0.005)
        answer.cancel()
        await asyncio.wait([answer])
        spent, after = await engine.spent(hop), await engine.metered()
        _require("it is known", holds=spent is not None and spent.completion >= 2 * 2)
        grown = (after.prompt - before.prompt, after.completion - before.completion)
        _require("it is what was metered", holds=spent is not None and grown == spent[:2])


async def counts_a_prompt_beforehand(engine: Engine) -> None:
    """A prompt has as many tokens as were counted before it was read; one that would be refused has none."""
    counted = await engine.count("generate", _BODY)
    chunks = await _collect(engine, {**_BODY, "stream": False})
    _require(f"{counted} is what was read", holds=counted == chunks[-1].usage.prompt)


async def counts_a_route_beforehand(engine: Engine) -> None:
    """The same holds for an input that is to be routed, also when nobody has asked for its choices before."""
    choices = {**_CHOICES, "news": [f"what happened in {uuid.uuid4().hex}"]}
    body = {"input": "please refund my invoice", "choices": choices, TAG: HopTag("routed", step="triage")}
    counted = await engine.count("classify", body)
    _require("it is what is read", holds=counted == (await engine.classify(body)).usage.prompt)
    spent = await engine.spent("routed")
    _require("it is what is charged", holds=spent is not None and spent.prompt == counted)


async def classifies_by_meaning(engine: Engine) -> None:
    """The choice whose examples are nearest wins, with a score for each."""
    answer = await engine.classify({"input": "please refund my invoice", "choices": _CHOICES})
    _require("nearest choice", holds=answer.choice == "money")
    _require("a score for each", holds=set(answer.scores) == set(_CHOICES))
    _require("the prompt is counted", holds=answer.usage.prompt > 0 and answer.usage.completion == 0)


async def classifies_the_same_again(engine: Engine) -> None:
    """The same question gives the same answer, and costs no more than its own tokens."""
    body = {"input": "book a train", "choices": _CHOICES}
    await engine.classify(body)
    before = await engine.metered()
    again = await engine.classify(body)
    after = await engine.metered()
    _require("same choice", holds=again.choice == "travel")
    _require("usage is what was metered", holds=after.prompt - before.prompt == again.usage.prompt)


async def embeds_unit_vectors(engine: Engine) -> None:
    """Each text gets one vector of length one; equal texts get equal vectors."""
    answer = await engine.embed({"input": ["a train", "a train", "an invoice"]})
    _require("one vector each", holds=len(answer.vectors) == 3)  # noqa: PLR2004 - three texts
    for vector in answer.vectors:
        _require("length one", holds=abs(sum(v * v for v in vector) - 1.0) < 1e-3)  # noqa: PLR2004 - tolerance
    alike = max(abs(a - b) for a, b in zip(answer.vectors[0], answer.vectors[1], strict=True))
    _require("equal texts, equal vectors", holds=alike < 1e-4)  # noqa: PLR2004 - tolerance


async def refuses_missing_choices(engine: Engine) -> None:
    """A body without choices is refused by name."""
    try:
        await engine.classify({"input": "x"})
    except InvalidRequest as error:
        _require("choices are named", holds=error.param == "choices")
    else:
        _require("missing choices are refused", holds=False)


async def answers_a_ping_and_is_idle(engine: Engine) -> None:
    """An engine with nothing to do answers a ping and says that it is idle."""
    await engine.ping()
    await _until_idle(engine)


async def _until_idle(engine: Engine) -> None:
    async with asyncio.timeout(10):
        while not await engine.idle():
            await asyncio.sleep(0.02)


Check = Callable[[Engine], Awaitable[None]]

GENERATING: tuple[Check, ...] = (
    streams_deltas_with_running_usage,
    marks_the_finish,
    answers_in_one_chunk,
    refuses_a_wrong_type_by_name,
    cuts_a_prompt,
    refuses_an_overlong_prompt,
    applies_a_default_cap,
    aborts_when_closed,
    meters_what_answers_report,
    warms_a_generation,
    reports_what_a_cancelled_call_spent,
    counts_every_choice_of_a_broken_off_call,
    counts_a_prompt_beforehand,
    answers_a_ping_and_is_idle,
)

ENCODING: tuple[Check, ...] = (
    classifies_by_meaning,
    classifies_the_same_again,
    counts_a_route_beforehand,
    embeds_unit_vectors,
    refuses_missing_choices,
    answers_a_ping_and_is_idle,
)

__all__ = ["ENCODING", "GENERATING", "Check"]
