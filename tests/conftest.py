"""What holds for every test."""

import asyncio

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_loop_outside_async_tests():
    """Let looptime find no loop in a sync test: else the policy makes one, which nobody closes."""
    asyncio.set_event_loop(None)
