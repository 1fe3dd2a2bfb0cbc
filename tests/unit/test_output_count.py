"""What vLLM generates is counted as it comes, by a client of vLLM's form."""

from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from types import SimpleNamespace

import pytest

from runtime.core.ledger import HopTag
from runtime.core.usage import NOTHING, Usage
from runtime.engines.tally import Count
from runtime.serve.output_count import OutputCounts


class Kind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class Params:
    output_kind: Kind
    n: int = 1

    def clone(self):
        return replace(self)


class Client:
    """Generates three tokens, and says so as vLLM does for each kind of output."""

    def __init__(self):
        self.closed = False

    async def generate(self, prompt, params, request_id):
        try:
            for step in (1, 2, 3):
                if params.output_kind is Kind.FINAL_ONLY and step < 3:
                    continue
                tokens = [7] if params.output_kind is Kind.DELTA else [7] * step
                yield SimpleNamespace(
                    prompt_token_ids=[1, 2],
                    outputs=[SimpleNamespace(token_ids=tokens)],
                    num_cached_tokens=1,
                    finished=step == 3,
                )
        finally:
            self.closed = True


async def outputs(client, params, count=None, first=9):
    """Return the lengths of so many outputs, then go away; told to ``count`` if there is one."""
    seen, counts = [], OutputCounts()
    with counts.of(count or Count(HopTag("another"))) as request:
        asked = f"chatcmpl-{request}" if count else "chatcmpl-h"
        async with aclosing(counts.counted(client.generate)("prompt", params, asked)) as generated:
            async for output in generated:
                seen.append(len(output.outputs[0].token_ids))
                if len(seen) == first:
                    break
    return seen


# Who asks for the whole answer sees its end only, and every token of it is counted.
async def test_a_whole_answer():
    params, count = Params(Kind.FINAL_ONLY), Count(HopTag("h"))
    assert await outputs(Client(), params, count) == [3]
    assert count.usage == Usage(2, 3, 1)
    assert params.output_kind is Kind.FINAL_ONLY


# Of a whole answer that is broken off, what was generated until then is known.
async def test_a_whole_answer_broken_off():
    class Broken(Client):
        async def generate(self, *options):
            async for output in super().generate(*options):
                yield output
                if len(output.outputs[0].token_ids) == 2:
                    raise ConnectionError

    count = Count(HopTag("h"))
    with pytest.raises(ConnectionError):
        await outputs(Broken(), Params(Kind.FINAL_ONLY), count)
    assert count.usage == Usage(2, 2, 1)


# A stream, several choices, and calls that nobody counts pass through as they are.
@pytest.mark.parametrize(
    ("params", "seen"),
    [
        (Params(Kind.DELTA), [1, 1, 1]),
        (Params(Kind.FINAL_ONLY, n=2), [3]),
        (Params(Kind.CUMULATIVE), [1, 2, 3]),
    ],
    ids=["a stream", "two choices", "cumulative"],
)
async def test_everything_else_passes_through(params, seen):
    count = Count(HopTag("h"))
    assert await outputs(Client(), params, count) == seen
    assert count.usage == NOTHING
    assert await outputs(Client(), Params(Kind.FINAL_ONLY)) == [3]


# Whoever goes away closes vLLM's own generator, which aborts the request.
async def test_closing_reaches_vllm():
    client = Client()
    assert await outputs(client, Params(Kind.DELTA), Count(HopTag("h")), first=1) == [1]
    assert client.closed


# Two calls under one hop's id are counted apart.
def test_two_calls_of_one_hop():
    counts = OutputCounts()
    with counts.of(Count(HopTag("h"))) as one, counts.of(Count(HopTag("h"))) as other:
        assert one == "h" != other
