"""One local Ray cluster for the session, with two gateways and scripted engines."""

import pytest
import yaml

from benchmarks.parts.local_cluster import LocalCluster
from tests.cluster import ROOT, Deployed, driver_of


def scripted(version, **writer):
    """A support agent of two fake engines; only the writer depends on the version."""
    return {
        "name": "support",
        "engines": {
            "router": {"kind": "fake", "time_to_first_token": "2ms"},
            "writer": {
                "kind": "fake",
                "load": "200ms",
                "time_to_first_token": "20ms",
                "inter_token": "10ms",
                "tokens": 30,
                "reply": f"v{version}-",
                **writer,
            },
        },
        "chains": {
            "support-agent": {
                "deadline": "30s",
                "steps": [
                    {"id": "triage", "route": {"engine": "router", "choices": {"a": ["bill"], "b": ["bug"]}}},
                    {"id": "answer", "generate": {"engine": "writer", "prompt": "{{ steps.triage.choice }}"}},
                ],
                "answer": "answer",
                "samples": [{"messages": [{"role": "user", "content": "my bill"}]}],
            }
        },
        "rollback_window": "1s",
    }


@pytest.fixture(scope="session")
def cluster():
    with LocalCluster(ROOT) as started:
        yield started


@pytest.fixture(scope="session")
def driver(cluster):
    with driver_of(cluster):
        yield


@pytest.fixture(scope="session")
def write_set(cluster):
    """Write a model set; return its path."""

    def write(name, document):
        path = cluster.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture(scope="session")
def interlock(cluster, write_set):
    """Interlock with two gateways and a live release."""
    deployed = Deployed(cluster, gateways=2)
    done = deployed.deploy_and_wait(write_set("first", scripted(0)), timeout=90)
    assert done.returncode == 0, done.stderr
    yield deployed
    deployed.close()
