"""A Serve config that declares of gateways or the manager what cannot work is refused in one sentence."""

import pytest
from ray.serve._private.config import DeploymentConfig

from runtime.errors import DeploymentRefused
from runtime.serve.declared import check_gateway, check_manager


def declared(**options):
    return DeploymentConfig(**{"num_replicas": 1, "max_ongoing_requests": 10_000, **options})


# There is one manager: a second one would take the store from the first, and autoscaling would make it.
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_replicas": 2}, r"SwapManager: num_replicas: 2: there is one manager.*leave it out"),
        (
            {"num_replicas": None, "autoscaling_config": {"min_replicas": 1}},
            r"SwapManager: autoscaling_config:",
        ),
        (
            {"max_ongoing_requests": 5},
            r"SwapManager: max_ongoing_requests: 5: gateways' long polls.*at least 1000",
        ),
    ],
)
def test_the_manager(options, said):
    check_manager(declared())
    with pytest.raises(DeploymentRefused, match=said):
        check_manager(declared(**options))


# Gateways may be as many as one likes; one that answers only a few at a time could not be asked how it is.
def test_gateways():
    check_gateway(declared(num_replicas=4, max_ongoing_requests=100))
    with pytest.raises(DeploymentRefused, match=r"Gateway: max_ongoing_requests: 1: probes and streams"):
        check_gateway(declared(max_ongoing_requests=1))
