"""Peers of the benchmarks, with the one that needs neither Ray nor a model."""

import psutil
import pytest

from benchmarks.parts.closed_loop import ClosedLoop, ClosedPlan
from benchmarks.parts.peer import set_aside, take_up
from benchmarks.parts.peers import scripted_server
from benchmarks.parts.processes import Watched
from benchmarks.parts.script import Script


@pytest.fixture
def peer():
    peer = scripted_server(Script(0.02, 0.005))
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()


async def measure(peer):
    plan = ClosedPlan(peer.url, peer.model, streams=4, tokens=8, seconds=0.3)
    return await ClosedLoop(plan, Watched(peer.processes()).read).run()


# What the generator counts is what the script says: its tokens, none before their time (to the
# millisecond, as exact as an event loop's timer is), and no errors.
async def test_the_generator_counts_what_is_scripted(peer):
    window = await measure(peer)
    assert window.errors == []
    assert all(answer.tokens == answer.asked == len(answer.pieces) for answer in window.answers)
    assert min(window.ttft_ms) >= 19.0
    assert sum(window.readings[1].cpu_s.values()) >= sum(window.readings[0].cpu_s.values())


# A peer that is set aside stands still, and one that is taken up again answers as before.
async def test_a_peer_that_is_set_aside_stands_still(peer):
    set_aside(peer)
    assert {process.status() for process in peer.processes()} == {psutil.STATUS_STOPPED}
    take_up(peer)
    assert (await measure(peer)).errors == []


# A peer that is stopped leaves no process behind, also while it is set aside.
def test_a_stopped_peer_leaves_no_process():
    peer = scripted_server(Script(0.0, 0.0))
    peer.start()
    processes = peer.processes()
    set_aside(peer)
    peer.stop()
    assert not any(process.is_running() for process in processes)
