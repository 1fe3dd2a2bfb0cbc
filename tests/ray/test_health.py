"""Health on a real cluster: what there is is seen, and so is what is missing while Serve brings it back."""

import time

from tests.cluster import release_of
from tests.ray.conftest import scripted


def infrastructure(interlock):
    """Return the tier, as any gateway tells it."""
    answer = interlock.http.get("/admin/v1/health")
    assert answer.status_code == 200, answer.text
    return answer.json()["tiers"]["infrastructure"]


def until(condition, interlock, seconds):
    """Return the first tier for which `condition` holds."""
    end = time.monotonic() + seconds
    while not condition(tier := infrastructure(interlock)):
        assert time.monotonic() < end, tier
        time.sleep(0.1)
    return tier


# Real nodes, replicas and proxies are counted. An engine's replica that dies is told of, by its engine and
# its release, until Serve has brought up another.
def test_infrastructure(interlock, write_set):
    status = interlock.swap_to(write_set("health", scripted(60, load="3s")))
    writer = release_of(status, status["live"])["engines"]["writer"]["digest"][:12]
    well = until(lambda tier: tier["verdict"] == "healthy", interlock, 30)
    assert well["numbers"]["nodes"] == {"alive": 1, "dead": 0}
    assert set(well["numbers"]["proxies"].values()) == {"HEALTHY"}
    running = {d["name"]: d["running"] for d in well["numbers"]["deployments"]}
    assert (running["Gateway"], running["SwapManager"], running[interlock.application(writer)]) == (2, 1, 1)
    interlock.replicas(interlock.application(writer), "engine")[0].kill()
    sick = until(lambda tier: tier["verdict"] == "unhealthy", interlock, 30)
    assert f"engine writer ({writer}) of release {status['live']} run" in sick["reasons"][0]
    until(lambda tier: tier["verdict"] == "healthy", interlock, 60)


# The command tells the same, and a script knows the verdict by its exit code.
def test_the_command(interlock):
    done = interlock.run("health")
    assert done.returncode in (0, 3, 4), done.stderr
    assert all(tier in done.stdout for tier in ("infrastructure", "orchestration", "agent"))


# What is read of the controller's answer is what `serve.status` makes of it, which checks all of it.
def test_the_status_is_serves_own(interlock, driver, monkeypatch):
    from ray import serve
    from ray.serve import api

    from runtime.serve.cluster import serve_status

    client = api._get_global_client()
    answer = client.get_serve_details()
    monkeypatch.setattr(client, "get_serve_details", lambda: answer)  # one moment for both
    told, theirs = serve_status.serve_status(), serve.status()
    assert told.proxies == {node: proxy.value for node, proxy in theirs.proxies.items()}
    assert {name: (app.status, app.message) for name, app in told.applications.items()} == {
        name: (app.status.value, app.message) for name, app in theirs.applications.items()
    }
    for name, app in theirs.applications.items():
        assert {
            deployment: (status.status, status.message, dict(status.replicas))
            for deployment, status in told.applications[name].deployments.items()
        } == {
            deployment: (status.status.value, status.message, status.replica_states)
            for deployment, status in app.deployments.items()
        }
    assert "Gateway" in told.applications["interlock"].deployments
