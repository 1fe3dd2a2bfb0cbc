"""How parts of many streams come to be few messages, in virtual time."""

import asyncio

import msgspec
import pytest

from runtime.channel import wire
from runtime.channel.wire import ReplyFrame, Sender

_PACE = wire._PACE_S


class Wire:
    """What a sender sends with. It notes when it sent what."""

    def __init__(self):
        self.sent, self.full, self.on_resumed = [], False, None
        self._begun = asyncio.get_running_loop().time()

    def send(self, message):
        calls = [reply.number for reply in msgspec.msgpack.decode(message, type=list[ReplyFrame])]
        self.sent.append((asyncio.get_running_loop().time() - self._begun, calls))


def sender():
    """A sender, and when it sent what: the calls that the parts of a message are of."""
    written = Wire()
    return Sender(written), written.sent


# A part that comes after a pause waits for nothing, paced or not.
@pytest.mark.parametrize("paced", [False, True])
async def test_after_a_pause_at_once(paced):
    made, sent = sender()
    for call in (1, 2):
        made.send(ReplyFrame(call), paced=paced)
        await asyncio.sleep(0.05)
    assert sent == [(0.0, [1]), (pytest.approx(0.05), [2])]


# Paced parts that come soon after a message go together, as soon as the pace allows.
async def test_paced_parts_go_together():
    made, sent = sender()
    made.send(ReplyFrame(1), paced=True)
    await asyncio.sleep(0)
    for call in (2, 3, 4):
        await asyncio.sleep(_PACE / 10)
        made.send(ReplyFrame(call), paced=True)
    await asyncio.sleep(1.0)
    assert sent == [(0.0, [1]), (pytest.approx(_PACE), [2, 3, 4])]


# What is not paced waits for nothing, and takes along what waits, in the order in which it came.
async def test_the_first_token_takes_along_what_waits():
    made, sent = sender()
    made.send(ReplyFrame(1), paced=True)
    await asyncio.sleep(0)
    made.send(ReplyFrame(2), paced=True)
    await asyncio.sleep(_PACE / 4)
    made.send(ReplyFrame(3))
    await asyncio.sleep(_PACE / 4)
    made.send(ReplyFrame(4), paced=True)
    await asyncio.sleep(1.0)
    later = pytest.approx(_PACE / 4), pytest.approx(_PACE / 4 + _PACE)
    assert sent == [(0.0, [1]), (later[0], [2, 3]), (later[1], [4])]


# While the other end takes nothing, parts wait; then they go out in one message, in their order.
async def test_the_other_end_is_full():
    written = Wire()
    made, written.full = Sender(written), True
    for call in (1, 2):
        made.send(ReplyFrame(call))
        await asyncio.sleep(1.0)
    assert written.sent == []
    written.full = False
    written.on_resumed()
    made.send(ReplyFrame(3))
    await asyncio.sleep(1.0)
    assert written.sent == [(2.0, [1, 2]), (2.0, [3])]
