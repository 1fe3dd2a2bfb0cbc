"""Where a request gets in: a lease on the live release, and the chain call that will hold it."""

from __future__ import annotations

from runtime.clock import Clock
from runtime.core.routes import RoutedRelease
from runtime.errors import NoLiveRelease
from runtime.traffic.chain import ChainCall, ChatRequest
from runtime.traffic.meter import Meter
from runtime.traffic.routing import Routing


class Admission:
    """Lets requests in, one lease each."""

    def __init__(self, routing: Routing, clock: Clock, meter: Meter) -> None:
        self._routing = routing
        self._clock = clock
        self._meter = meter

    def admit(self, request: ChatRequest) -> ChainCall:
        """Take a lease for ``request``; the caller closes the call that comes back.

        Raises:
            NoLiveRelease: nothing serves yet.
            UnknownModel: the live release has no such chain.

        """
        return ChainCall(self._routing.lease(request.model), request, self._clock, self._meter)

    @property
    def ready(self) -> bool:
        """Say whether a live release is held."""
        return self._routing.live is not None

    def live(self) -> RoutedRelease:
        """Return the live release. Raises NoLiveRelease."""
        if self._routing.live is None:
            raise NoLiveRelease("no release is live yet; see: interlock status", retry_after=5.0)
        return self._routing.live.routed
