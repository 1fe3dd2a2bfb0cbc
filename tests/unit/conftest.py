"""Fixtures of the tests that need no cluster, no sockets and no waiting: time is virtual."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent

settings.register_profile("unit", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("unit")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("looptime") is None:
            item.add_marker(pytest.mark.looptime(start=1000.0, noop_cycles=2))


@pytest.fixture(scope="session", autouse=True)
def _no_loop_outside_async_tests():
    """Let looptime find no loop in a sync test: else the policy makes one, which nobody closes."""
    asyncio.set_event_loop(None)
