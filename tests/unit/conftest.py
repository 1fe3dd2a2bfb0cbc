"""Fixtures of the tests that need no cluster, no sockets and no waiting: time is virtual."""

import pytest

pytestmark = pytest.mark.looptime


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("looptime") is None:
            item.add_marker(pytest.mark.looptime(start=1000.0))
