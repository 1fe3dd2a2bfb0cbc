"""The support agent on real engines: vLLM and an encoder, both on the CPU."""

from pathlib import Path

import pytest

from benchmarks.parts.local_cluster import LocalCluster
from tests.cluster import ROOT, Deployed, driver_of, release_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    # The first test of a run waits for the engines, and a busy machine takes minutes to load them.
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def cluster():
    with LocalCluster(ROOT) as started:
        yield started


@pytest.fixture(scope="session")
def support(cluster):
    """Interlock with support v1 live."""
    deployed = Deployed(cluster, gateways=1)
    deployed.swap_to("models/support/v1.yaml", seconds=300)
    yield deployed
    deployed.close()


@pytest.fixture(scope="session")
def driver(support):
    with driver_of(support.cluster):
        yield


@pytest.fixture(scope="session")
def engine_of(support, driver):
    """Return the live release's engine of a name, called over its handle."""
    from ray import serve

    from tests.owned_engine import OwnedEngine

    status = support.status()
    engines = release_of(status, status["live"])["engines"]

    def find(name):
        return OwnedEngine(serve.get_app_handle(support.application(engines[name]["digest"])))

    return find
