"""Which release a request gets, and what leases count."""

import pytest

from runtime.errors import NoLiveRelease, UnknownModel
from runtime.traffic.routing import Ask, Routing
from tests.unit.traffic.test_follower import go_live, prepared, routed


# A lease is on the release that is live when it is taken, and stays there when another one goes live.
def test_lease_is_on_the_live_release():
    routing = Routing()
    go_live(routing, prepared(1))
    old = routing.lease(Ask("agent"))
    go_live(routing, prepared(2))
    new = routing.lease(Ask("agent"))
    assert (old.release.number, new.release.number) == (1, 2)
    assert new.chain == routed(2).chains["agent"]
    assert routing.leases == {1: 1, 2: 1}


# Closing a lease a second time gives up nobody else's.
def test_lease_closed_twice_counts_once():
    routing = Routing()
    go_live(routing, prepared(1))
    first, second = routing.lease(Ask("agent")), routing.lease(Ask("agent"))
    first.close()
    first.close()
    assert routing.leases == {1: 1}
    second.close()
    assert routing.leases == {}


# The last lease on a release says so only if the release is not the live one.
def test_drained_is_said_of_a_release_that_is_not_live():
    said = []
    routing = Routing(on_drained=lambda: said.append(routing.leases))
    go_live(routing, prepared(1))
    routing.lease(Ask("agent")).close()
    assert said == []
    first, second = routing.lease(Ask("agent")), routing.lease(Ask("agent"))
    go_live(routing, prepared(2))
    first.close()
    assert said == []
    second.close()
    assert said == [{}]


# A name that is not a chain takes no lease, and the error says which chain was probably meant.
def test_unknown_model():
    routing = Routing()
    go_live(routing, prepared(1))
    with pytest.raises(UnknownModel, match="did you mean 'agent'") as caught:
        routing.lease(Ask("agnet"))
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    with pytest.raises(UnknownModel, match="there is: agent"):
        routing.lease(Ask("zzz"))
    assert routing.leases == {}


# Before the first table no request gets in, and none is counted.
def test_no_live_release():
    routing = Routing()
    with pytest.raises(NoLiveRelease):
        routing.lease(Ask("agent"))
    assert routing.leases == {}
