"""Two Interlocks in one Ray cluster, and an application of somebody else's that is called like an engine."""

import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest

from benchmarks.parts.local_cluster import LocalCluster
from tests.cluster import ROOT, Deployed
from tests.ray.conftest import scripted


class Beside(Deployed):
    """Another application on the same port, with a store of its own; both are in one Serve config."""

    def __init__(self, first):
        super().__init__(first.cluster, gateways=1, store_url=f"sqlite:///{first.cluster.folder}/beside.db")
        self.first = first
        self.port = first.port
        self.http = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/beside"


def config(sets):
    """Return one Serve config of all applications, each with its model set."""
    applications = []
    for number, (deployed, path) in enumerate(sets.items()):
        one = deployed.config(path)["applications"][0]
        applications.append({**one, **({"name": "beside", "route_prefix": "/beside"} if number else {})})
    return {
        "http_options": {"host": "127.0.0.1", "port": next(iter(sets)).port},
        "applications": applications,
    }


@pytest.fixture(scope="module")
def shared():
    with LocalCluster(ROOT) as started:
        yield started


@pytest.fixture(scope="module")
def both(shared):
    first = Deployed(shared, gateways=1)
    both = first, Beside(first)
    yield both
    for deployed in both:
        deployed.close()


STRANGER = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Search:
    def __call__(self):
        return "found"

serve.run(Search.bind(), name="engine-search", route_prefix="/engine-search")
"""


def run_stranger(cluster):
    """Have another program run an application on the cluster that is called like an engine."""
    command = [sys.executable, "-c", STRANGER]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def manager_of(cluster, application):
    """Return what Serve says of the application's manager."""
    told = cluster.api("GET", "/api/serve/applications/").json()["applications"]
    return told[application]["deployments"].get("SwapManager", {"status": "", "message": ""})


def until_told(cluster, application, said, seconds=120):
    """Return once Serve says of the application's manager that it does not start, and why."""
    end = time.monotonic() + seconds
    while said not in manager_of(cluster, application)["message"]:
        assert time.monotonic() < end, manager_of(cluster, application)
        time.sleep(0.5)


def live_on(path):
    def is_live(status):
        return status["wanted"]["source"] == str(path) and status["wanted"]["outcome"] == "live"

    return is_live


# Both serve, both swap, none of them touches the other's engines, and a stranger's `engine-search` survives.
@pytest.mark.timeout(300)
def test_two_interlocks_swap_beside_each_other(shared, both, tmp_path):
    import yaml

    def write(name, version):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(scripted(version)))
        return path

    shared.put(config({both[0]: write("first", 1), both[1]: write("beside", 1)}))
    run_stranger(shared)
    for deployed, name in zip(both, ("first", "beside"), strict=True):
        with suppress(AssertionError):
            deployed.until_ready(90)
        deployed.until(live_on(tmp_path / f"{name}.yaml"), 90)
    ids = {deployed.status()["installation"] for deployed in both}
    assert len(ids) == 2
    for turn in (2, 3):
        sets = {both[0]: write(f"first-{turn}", turn), both[1]: write(f"beside-{turn}", turn + 5)}
        shared.put(config(sets))
        for deployed, path in sets.items():
            status = deployed.until(live_on(path), 60)
            deployed.until(lambda s: all(r["state"] in ("live", "retired") for r in s["releases"]), 60)
            answer = deployed.chat().json()
            version = turn if deployed is both[0] else turn + 5
            assert answer["choices"][0]["message"]["content"].startswith(f"v{version}-")
            assert status["gateways"]
    told = shared.api("GET", "/api/serve/applications/").json()["applications"]
    engines = {name.rpartition("-")[0] for name in told if name.startswith("engine-")}
    assert engines == {"engine", *(f"engine-{one}" for one in ids)}
    assert sum(name.startswith("engine-") for name in told) == 5
    assert httpx.get(both[0].url + "/engine-search", trust_env=False, timeout=10).text == "found"


# A second manager on a store is refused, with who holds it, while the first goes on; so is a second replica
# of one manager. When they are taken out of the config again, the first still serves.
@pytest.mark.timeout(300)
def test_a_second_manager_is_refused(shared, both, tmp_path):
    import yaml

    path = tmp_path / "first.yaml"
    path.write_text(yaml.safe_dump(scripted(9)))
    first, _ = both
    (own,) = first.config(path)["applications"]
    shared.put({**first.config(path), "applications": [own]})
    first.until(live_on(path), 90)
    second = {**own, "name": "second", "route_prefix": "/second"}
    doubled = {**own, "deployments": [own["deployments"][0], {**own["deployments"][1], "num_replicas": 2}]}
    for wanted, application, said in (
        ([own, second], "second", "the store is in use by the manager of application 'interlock' (process "),
        ([doubled], "interlock", "SwapManager: num_replicas: 2: there is one manager"),
    ):
        shared.put({**first.config(path), "applications": wanted})
        until_told(shared, application, said)
        assert first.chat().json()["choices"][0]["message"]["content"].startswith("v9-")
    reasons = first.http.get("/admin/v1/health").json()["tiers"]["infrastructure"]["reasons"]
    assert any("SwapManager: num_replicas: 2: there is one manager" in reason for reason in reasons), reasons
