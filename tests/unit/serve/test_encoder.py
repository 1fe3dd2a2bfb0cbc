"""An encoder's calls share one thread, and nobody pays for the examples of a route."""

import asyncio
import importlib
import threading

import pytest

from runtime.core.metering.ledger import HopTag, Purpose
from runtime.core.model_set.engines import TransformersEngineSpec
from runtime.engines.tally import TAG

CHOICES = {"money": ["refund my invoice", "charged twice"], "travel": ["book a train to Rome"]}
EXAMPLES = 10
"""Words of all examples."""


def torch():
    """The library, imported when it is used first: that takes seconds, of every process that collects."""
    return importlib.import_module("torch")


class Tokenizer:
    """Splits into words; like a fast tokenizer it does not bear two threads."""

    def __init__(self):
        self.threads = set()
        self.longest = 0

    def __call__(self, texts, *, truncation, max_length, padding=False, return_tensors=None):
        self.threads.add(threading.get_ident())
        self.longest = max(self.longest, *map(len, texts))
        rows = [[len(word) for word in text.split()][:max_length] for text in texts]
        if return_tensors is None:
            return {"input_ids": rows}
        width = max(map(len, rows))
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        ids = [row + [0] * (width - len(row)) for row in rows]
        return {"input_ids": torch().tensor(ids), "attention_mask": torch().tensor(mask)}


class Model:
    def __call__(self, input_ids, attention_mask):
        hidden = torch().nn.functional.one_hot(input_ids % 16, 16).float()
        return type("Output", (), {"last_hidden_state": hidden})


@pytest.fixture
async def engine():
    module = importlib.import_module("runtime.serve.hosts.transformers")
    encoder = module.TransformersEngine(
        TransformersEngineSpec(kind="transformers", model="m", max_length=6), "nowhere"
    )
    encoder._tokenizer, encoder._model = Tokenizer(), Model()
    yield encoder
    await encoder.unload()


# A replica that had no warm-up charges its first caller for the question alone; the examples are a warm-up's.
async def test_examples_are_nobodys_question(engine):
    tag = HopTag("h", request="r", tenant="acme", key="k", chain="agent", step="triage", release=3)
    answers = await asyncio.gather(
        *(
            engine.classify({"input": "refund me please", "choices": CHOICES, TAG: tag._replace(hop=f"h{n}")})
            for n in range(2)
        )
    )
    assert [answer.usage.prompt for answer in answers] == [3, 3]
    ended = await engine.ended(0, 0.0, 99)
    charged = [end for end in ended if end.tag.tenant == "acme"]
    others = [end for end in ended if end.tag.tenant != "acme"]
    assert [end.usage.prompt for end in charged] == [3, 3]
    assert sum(end.usage.prompt for end in others) == EXAMPLES
    assert {(end.tag.purpose, end.tag.key, end.tag.request, end.tag.release) for end in others} == {
        (Purpose.WARMUP, "", "", 3)
    }


# Counting and encoding use the tokenizer in one thread, and never the event loop's.
async def test_one_thread_has_the_tokenizer(engine):
    body = {"input": "refund me please", "choices": CHOICES}
    await asyncio.gather(*(engine.count("classify", body) for _ in range(8)), engine.classify(body))
    assert len(engine._tokenizer.threads) == 1
    assert threading.get_ident() not in engine._tokenizer.threads


# A text of megabytes is cut to what may be read before it is split, and counted as it is read.
async def test_a_long_text(engine):
    body = {"input": "word " * 1_000_000, "choices": CHOICES}
    assert await engine.count("classify", body) == 6
    assert (await engine.classify(body)).usage.prompt == 6
    assert engine._tokenizer.longest <= 6 * 256
