"""What vLLM generates is counted by vLLM's own count of each sequence, by a processor of vLLM's form."""

from types import SimpleNamespace

import pytest

from runtime.core.metering.ledger import HopTag
from runtime.core.metering.usage import NOTHING, Usage
from runtime.engines.tally import Count
from runtime.serve.hosts.vllm.output_count import OutputCounts


class Processor:
    """Keeps a state of each sequence, as vLLM's does, and ends it."""

    def __init__(self):
        self.request_states = {}
        self.told_core = []

    def add_request(self, request):
        self.request_states[request.request_id] = SimpleNamespace(
            request_id=request.request_id,
            external_req_id=request.external,
            prompt_len=5,
            num_cached_tokens=2,
            is_prefilling=True,
            stats=SimpleNamespace(num_generation_tokens=0),
            detokenizer=SimpleNamespace(num_output_tokens=lambda: 7),
        )

    def step(self, name, tokens=1):
        """Generate: what is forgotten is not counted."""
        state = self.request_states.get(name)
        if state is not None:
            state.is_prefilling = False
            state.stats.num_generation_tokens += tokens

    def finish(self, name):
        del self.request_states[name]

    def abort_requests(self, names, *, internal):
        assert internal
        return [name for name in list(names) if self.request_states.pop(name, None)]

    async def tell(self, names):
        self.told_core.append(names)


@pytest.fixture
def vllm():
    processor = Processor()
    processor.counts = OutputCounts(processor, processor.tell)
    return processor


def ask(vllm, name, external):
    vllm.add_request(SimpleNamespace(request_id=name, external=external))


# The tokens of every choice count, as vLLM adds them up, and the prompt counts once and when it is read.
async def test_all_choices_count_as_they_step(vllm):
    count = Count(HopTag("h"))
    async with vllm.counts.of(count) as call:
        assert (call.request, call.submitted) == ("h", False)
        for choice in "01":
            ask(vllm, f"{choice}_h-1f", "chatcmpl-h")
        assert call.submitted
        assert count.usage == NOTHING
        vllm.step("0_h-1f")
        assert count.usage == Usage(5, 1, 2)
        vllm.step("1_h-1f", tokens=3)
        vllm.finish("1_h-1f")
        assert count.usage == Usage(5, 4, 2)
        vllm.step("0_h-1f")
        vllm.finish("0_h-1f")
    assert count.usage == Usage(5, 5, 2)
    assert vllm.told_core == []


# A call that ends before its answer has spent what was generated until then; vLLM generates no more of it.
async def test_a_call_that_is_broken_off(vllm):
    count = Count(HopTag("h"))
    async with vllm.counts.of(count):
        ask(vllm, "0_h-1f", "chatcmpl-h")
        ask(vllm, "1_h-1f", "chatcmpl-h")
        vllm.step("0_h-1f", tokens=2)
    vllm.step("0_h-1f", tokens=100)
    assert count.usage == Usage(5, 2, 2)
    assert vllm.told_core == [["0_h-1f", "1_h-1f"]]
    assert not vllm.request_states


# Each beam of each step of a beam search is a sequence of its own, and counts.
async def test_beams(vllm):
    count = Count(HopTag("h-0"))
    async with vllm.counts.of(count):
        for step in range(3):
            for beam in range(2):
                name = f"chatcmpl-h-0-{'ab' * 16}-beam-{beam}"
                ask(vllm, f"{name}-{step}", name)
                vllm.step(f"{name}-{step}")
                vllm.finish(f"{name}-{step}")
    assert count.usage == Usage(5, 6, 2)


# Two calls under one hop's id are counted apart, and what nobody asked for is nobody's.
async def test_two_calls_of_one_hop(vllm):
    first, second = Count(HopTag("h")), Count(HopTag("h"))
    async with vllm.counts.of(first) as one, vllm.counts.of(second) as other:
        assert one.request == "h" != other.request
        ask(vllm, "a", f"chatcmpl-{other.request}")
        ask(vllm, "b", "chatcmpl-somebody")
        vllm.step("a", tokens=4)
        vllm.step("b", tokens=9)
    assert (first.usage, second.usage) == (NOTHING, Usage(5, 4, 2))


# Where vLLM keeps no statistics, its detokenizer's count stands in.
async def test_without_statistics(vllm):
    count = Count(HopTag("h"))
    async with vllm.counts.of(count):
        ask(vllm, "a", "chatcmpl-h")
        vllm.request_states["a"].stats = None
        assert count.usage.completion == 7
