"""What is read out of Serve's details: how many replicas there should be, and why some have no place."""

import pytest

from runtime.serve.cluster.serve_status import _application


def told(message="", target=2, states=("RUNNING", "STARTING"), autoscaling=None):
    """An application as Serve's controller tells of it, as far as it is read."""
    deployment = {
        "status": "UPDATING",
        "message": message,
        "target_num_replicas": target,
        "deployment_config": {"name": "engine", "autoscaling_config": autoscaling},
        "replicas": [{"state": state} for state in states],
    }
    return _application({"status": "DEPLOYING", "message": "", "deployments": {"engine": deployment}})


def slow(needs, free):
    """What Serve says of a replica that is not scheduled after half a minute."""
    return (
        "Deployment 'engine' in application 'engine-a' has 1 replicas that have taken more than 30s to be "
        "scheduled. This may be due to waiting for the cluster to auto-scale or for a runtime environment to "
        f"be installed. Resources required for each replica: {needs}, total resources available: "
        f"{free}. Use `ray status` for more details."
    )


# Ray's own reason why a replica has no place is told; other messages are none.
def test_no_place():
    said = 'no place yet: each replica needs {"CPU": 4.0}; the cluster has {"CPU": 1.0} free'
    assert told(slow('{"CPU": 4.0}', '{"CPU": 1.0}')).no_place == said
    assert told("has 1 replicas that have taken more than 30s to initialize.").no_place is None


# Where Serve names nothing that is free, the replica may have its place and only be slow: none is missed.
@pytest.mark.parametrize("needs", ['{"CPU": 1.0}', '[{"CPU": 2.0}, {"GPU": 0.45}]'])
def test_nothing_named_as_free(needs):
    assert told(slow(needs, "{}")).no_place == (
        f"not placed yet, or slow to start: each replica needs {needs}; Serve does not say what is free"
    )


# An engine that Serve scales by load has as many replicas as Serve keeps now, whatever it began with: fewer
# later are no fault, and a warm-up reaches those that run. Of any other all have to be there.
def test_autoscaled():
    scaled_down = told(target=1, states=("RUNNING",), autoscaling={"initial_replicas": 3})
    assert (scaled_down.running, scaled_down.target, scaled_down.to_warm) == (1, 1, 1)
    growing = told(target=3, states=("RUNNING", "STARTING", "STARTING"), autoscaling={"initial_replicas": 1})
    assert (growing.target, growing.to_warm) == (3, 1)
    assert told(target=3, states=("RUNNING",)).to_warm == 3
    assert told(target=0, states=(), autoscaling={"min_replicas": 0}).to_warm == 1
