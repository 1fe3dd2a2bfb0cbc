"""What holds for every test."""

import asyncio
import gc

import pytest

gc.disable()
"""Imports and collection make next to no garbage, and looking for it is a third of their time."""


def pytest_collection_finish():
    """Keep what was imported and collected out of the garbage collector's way: a tenth of the tests' time."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _no_loop_outside_async_tests():
    """Let looptime find no loop in a sync test: else the policy makes one, which nobody closes."""
    asyncio.set_event_loop(None)
