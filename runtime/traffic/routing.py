"""Which release takes a new request, and who still holds which.

One gateway has one ``Routing``. Its live release is a single attribute, replaced whole; a lease is
taken in the same synchronous step that reads it, so no request can fall between two releases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtime.core.routes import RoutedRelease
from runtime.core.specs import Chain, nearest
from runtime.engines.port import EngineClient
from runtime.errors import NoLiveRelease, UnknownModel


@dataclass(frozen=True)
class PreparedRelease:
    """A release whose engines this gateway has resolved and pinged."""

    routed: RoutedRelease
    clients: Mapping[str, EngineClient]
    """Engine name to client."""

    @property
    def number(self) -> int:
        """The release's number."""
        return self.routed.number


class Lease:
    """A request's hold on one release and one of its chains, from admission to last byte."""

    def __init__(self, release: PreparedRelease, chain: Chain, close: Callable[[int], None]) -> None:
        self.release = release
        self.chain = chain
        self._close = close
        self._open = True

    def close(self) -> None:
        """Give the hold up. Closing again changes nothing."""
        if self._open:
            self._open = False
            self._close(self.release.number)


class Routing:
    """The live release and the open leases of one gateway.

    ``on_drained`` is called when the last lease on a release other than the live one closes.
    """

    def __init__(self, on_drained: Callable[[], None] = lambda: None) -> None:
        self._live: PreparedRelease | None = None
        self._leases: Counter[int] = Counter()
        self._on_drained = on_drained

    @property
    def live(self) -> PreparedRelease | None:
        """The release that takes new requests."""
        return self._live

    @property
    def leases(self) -> dict[int, int]:
        """Open leases by release number; releases without any are left out."""
        return dict(self._leases)

    def install(self, live: PreparedRelease | None) -> None:
        """Send new requests to ``live`` from now on."""
        self._live = live

    def lease(self, model: str) -> Lease:
        """Take a hold on the live release for a request that names ``model``.

        Synchronous on purpose: an await between reading the release and counting the lease would let
        a cutover and a drain pass in between.

        Raises:
            NoLiveRelease: nothing serves yet.
            UnknownModel: the live release has no chain of that name.

        """
        live = self._live
        if live is None:
            raise NoLiveRelease("no release is live yet; see: interlock status", retry_after=5.0)
        chain = live.routed.chains.get(model)
        if chain is None:
            raise _unknown(model, list(live.routed.chains))
        self._leases[live.number] += 1
        return Lease(live, chain, self._release)

    def _release(self, number: int) -> None:
        self._leases[number] -= 1
        if self._leases[number] == 0:
            del self._leases[number]
            if self._live is None or self._live.number != number:
                self._on_drained()


def _unknown(model: str, known: list[str]) -> UnknownModel:
    suggestion = nearest(model, known)
    hint = f"; did you mean {suggestion!r}?" if suggestion else f"; there is: {', '.join(known)}"
    return UnknownModel(f"the model {model!r} does not exist{hint}", param="model", code="model_not_found")
