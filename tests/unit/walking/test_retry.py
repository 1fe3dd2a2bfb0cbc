"""A replica that dies costs its calls one more try, unless the client has seen a part of the answer."""

import pytest

from runtime.core.metering.ledger import HopTag
from runtime.core.metering.usage import Usage
from runtime.engines.port import Chunk, Classification
from runtime.engines.tally import TAG
from runtime.errors import EngineLost
from runtime.walking.retry import RetryingEngine


class Mortal:
    """An engine of which the first ``deaths`` replicas die, each after ``begun`` chunks."""

    def __init__(self, deaths, begun=0):
        self.deaths = deaths
        self.begun = begun
        self.asked = 0

    async def generate(self, body):
        self.asked += 1
        for number in range(3):
            if self.asked <= self.deaths and number == self.begun:
                raise EngineLost("gone")
            yield [Chunk(str(number).encode(), Usage(), 0.0)]

    async def classify(self, body):
        self.asked += 1
        if self.asked <= self.deaths:
            raise EngineLost("gone")
        return Classification("a", {"a": 1.0}, Usage(), 0.0)


async def texts(engine):
    return [chunk async for chunks in RetryingEngine(engine).generate({}) for chunk in chunks]


# A stream whose replica dies before its first byte is asked for once more, and is whole.
async def test_lost_before_the_first_byte():
    assert len(await texts(Mortal(deaths=1))) == 3


# After the first byte there is no second try: what follows would not continue what was seen.
async def test_lost_after_the_first_byte():
    engine = Mortal(deaths=1, begun=1)
    with pytest.raises(EngineLost):
        await texts(engine)
    assert engine.asked == 1


# A call whose second replica dies, too, fails: an answer that kills what computes it must not kill all.
async def test_lost_twice():
    for ask in (texts, lambda engine: RetryingEngine(engine).classify({})):
        engine = Mortal(deaths=2)
        with pytest.raises(EngineLost):
            await ask(engine)
        assert engine.asked == 2


# A classification is asked for once more.
async def test_classify_is_asked_again():
    assert (await RetryingEngine(Mortal(deaths=1)).classify({})).choice == "a"


# Each attempt has an id of its own: a replica that was lost may count on, and both counts are kept.
async def test_each_attempt_has_an_id():
    for deaths, last in ((0, "h"), (1, "h-again")):
        engine = RetryingEngine(Mortal(deaths))
        await engine.classify({TAG: HopTag("h")})
        assert engine.tag.hop == last
