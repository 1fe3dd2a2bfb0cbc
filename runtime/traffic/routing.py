"""Which release takes a new request, and who still holds which.

One gateway has one ``Routing``. It holds the clients of every release that the table names, and goes by one
``Routes``, replaced whole; a lease is taken in the same synchronous step that chooses among them, so no
request can fall between two releases.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from runtime.clock import Clock, SystemClock
from runtime.core.declaration.nearest import nearest
from runtime.core.metering.ledger import Purpose
from runtime.core.requests.ask import Ask
from runtime.core.swap.routes import RoutedRelease
from runtime.core.swap.standing import Moment, Standing
from runtime.core.walk.chain import Chain
from runtime.errors import NoLiveRelease, Overloaded, UnknownModel
from runtime.walking.hops import PreparedRelease

MAX_WAITING = 1000
"""How many requests of one gateway wait while the live release sleeps for a swap; more are refused."""


Identity = tuple[int, str]
"""What identifies a release: a journal that has lost its end gives its last numbers again."""


def identity(release: RoutedRelease) -> Identity:
    """Return a release's number and model set."""
    return release.number, release.model_set


@dataclass(frozen=True)
class Routes:
    """Where requests go: the table's routes, of the releases that are prepared here."""

    live: Identity | None = None
    releases: Mapping[Identity, PreparedRelease] = field(default_factory=dict)

    @property
    def live_release(self) -> PreparedRelease | None:
        """The live release; None if none is."""
        return None if self.live is None else self.releases.get(self.live)

    def choose(self, ask: Ask) -> PreparedRelease | None:  # noqa: ARG002 - one rule goes by nothing of it
        """Return the release that a request runs on: the live one; None if none is."""
        return self.live_release


class Lease:
    """A request's hold on one release and one of its chains, from admission to last byte."""

    def __init__(
        self, release: PreparedRelease, chain: Chain, purpose: Purpose, close: Callable[[], None]
    ) -> None:
        self.release = release
        self.chain = chain
        self.purpose = purpose
        self._close = close
        self._open = True

    def close(self) -> None:
        """Give the hold up. Closing again changes nothing."""
        if self._open:
            self._open = False
            self._close()


class Routing:
    """The releases that a gateway can send requests to, and its open leases.

    ``on_drained`` is called when the last lease on a release other than the live one closes. While the
    ``standing`` has a fault there is no live release, whatever was installed.
    """

    def __init__(
        self,
        on_drained: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        standing: Standing | None = None,
    ) -> None:
        self.standing = standing or Standing(float("inf"))
        self._routes = Routes()
        self._clock = clock or SystemClock()
        self._numbers = itertools.count()
        self._leases: dict[int, dict[int, float]] = {}
        self._on_drained = on_drained
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._waiting = 0

    @property
    def live(self) -> PreparedRelease | None:
        """The release that takes new requests."""
        return None if self.fault else self._routes.live_release

    @property
    def fault(self) -> str:
        """Why this gateway may not route by its table; nothing if it may."""
        return self.standing.fault(self.moment())

    def moment(self) -> Moment:
        """Return what time it is."""
        return Moment(self._clock.now(), self._clock.wall())

    @property
    def leases(self) -> dict[int, int]:
        """Open leases by release number; releases without any are left out."""
        return {number: len(opened) for number, opened in self._leases.items()}

    @property
    def oldest(self) -> dict[int, float]:
        """Age in seconds of the oldest open lease, by release number."""
        now = self._clock.now()
        return {number: now - next(iter(opened.values())) for number, opened in self._leases.items()}

    def holds(self, release: RoutedRelease) -> bool:
        """Say whether requests can be sent to a release."""
        return identity(release) in self._routes.releases

    def hold(self, release: PreparedRelease) -> None:
        """Be able to send requests to a release; ``install`` decides whether any are sent."""
        held = {**self._routes.releases, identity(release.routed): release}
        self._routes = replace(self._routes, releases=held)

    def install(
        self, live: RoutedRelease | None, resident: Iterable[RoutedRelease] = (), *, paused: bool = False
    ) -> None:
        """Send new requests to ``live`` from now on, or let them wait; let go of what is not ``resident``."""
        kept = {identity(release) for release in (*resident, *([live] if live else []))}
        held = {known: release for known, release in self._routes.releases.items() if known in kept}
        self._routes = Routes(identity(live) if live is not None else None, held)
        if paused:
            self._resumed.clear()
        else:
            self._resumed.set()

    @property
    def paused(self) -> bool:
        """Say whether new requests wait."""
        return not self._resumed.is_set()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._waiting

    async def resumed(self) -> None:
        """Return when new requests need not wait any more; at once unless they do.

        Raises:
            Overloaded: too many wait already.

        """
        while self.paused:
            if self._waiting >= MAX_WAITING:
                message = f"{MAX_WAITING} requests wait here already while the models are swapped"
                raise Overloaded(message, retry_after=5.0)
            self._waiting += 1
            try:
                await self._resumed.wait()
            finally:
                self._waiting -= 1

    def lease(self, ask: Ask) -> Lease:
        """Take a hold on the release that a request is to run on.

        Synchronous on purpose: an await between reading the release and counting the lease would let
        a cutover and a drain pass in between.

        Raises:
            NoLiveRelease: nothing serves yet, or this gateway does not know any more what does.
            UnknownModel: that release has no chain of that name.

        """
        release, chain = self.choose(ask)
        number, lease = release.number, next(self._numbers)
        self._leases.setdefault(number, {})[lease] = self._clock.now()
        return Lease(release, chain, ask.purpose, lambda: self._release(number, lease))

    def choose(self, ask: Ask) -> tuple[PreparedRelease, Chain]:
        """Return what a request would run on now. Raises as ``lease`` does."""
        release = self._routes.choose(ask)
        if release is None:
            raise NoLiveRelease("no release is live yet; see: interlock status", retry_after=5.0)
        if fault := self.fault:
            # Here and nowhere before: a process that has stood still goes on with whatever was to come next.
            raise NoLiveRelease(f"{fault}; it asks again")
        chain = release.routed.chains.get(ask.chain)
        if chain is None:
            raise _unknown(ask.chain, list(release.routed.chains))
        return release, chain

    def _release(self, number: int, lease: int) -> None:
        del self._leases[number][lease]
        if not self._leases[number]:
            del self._leases[number]
            live = self.live
            if self.paused or live is None or live.number != number:
                self._on_drained()


def _unknown(chain: str, known: list[str]) -> UnknownModel:
    suggestion = nearest(chain, known)
    hint = f"; did you mean {suggestion!r}?" if suggestion else f"; there is: {', '.join(known)}"
    return UnknownModel(f"the model {chain!r} does not exist{hint}", param="model", code="model_not_found")
