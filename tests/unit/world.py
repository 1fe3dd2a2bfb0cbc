"""The simulated world as tests use it: a model set of two engines, and a client whose answers are counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import runtime.testing.world as testing
from runtime.core.metering.usage import Usage, total
from runtime.core.requests.ask import Ask
from runtime.testing.model_sets import content_of
from runtime.walking.context import RequestContext
from tests.unit.fresh_store import fresh_store


def document(version=1, *, writer=None, router=None, **changes):
    """A model set of two fake engines; ``version`` changes the writer and nothing of the router."""
    return {
        "name": "support",
        "engines": {
            "router": {"kind": "fake", "time_to_first_token": "5ms", **(router or {})},
            "writer": {
                "kind": "fake",
                "load": "20s",
                "time_to_first_token": "50ms",
                "inter_token": "20ms",
                "tokens": 20,
                "reply": f"v{version}-",
                **(writer or {}),
            },
        },
        "chains": {
            "agent": {
                "deadline": "30s",
                "steps": [
                    {"id": "triage", "route": {"engine": "router", "choices": {"a": ["bill"], "b": ["bug"]}}},
                    {
                        "id": "answer",
                        "generate": {
                            "engine": "writer",
                            "prompt": "{{ steps.triage.choice }} v" + str(version),
                        },
                    },
                ],
                "answer": "answer",
                "samples": [{"messages": [{"role": "user", "content": "my bill"}]}],
            }
        },
        "rollback_window": "60s",
        **changes,
    }


def content(version=1, **options):
    """The content of ``document(version, **options)``."""
    return content_of(document(version, **options))


@dataclass
class Tally:
    """What the clients saw."""

    answered: int = 0
    failed: list = field(default_factory=list)
    mixed: int = 0
    usage: Usage = field(default_factory=Usage)
    releases: set = field(default_factory=set)


class World(testing.World):
    """Use as ``async with World() as world``. Its requests' spending is kept; ``ask`` makes one."""

    def __init__(self, gateways=2, journal=None, cluster=None, stores=(), network=None):
        super().__init__(
            gateways,
            cluster=cluster,
            journal=journal,
            store=fresh_store(),
            network=network,
            installations=stores,
        )
        self.budgets = self.spending.budgets
        self.ledger = self.spending.ledger
        self.tally = Tally()

    @property
    def followers(self):
        return [gateway.follower for gateway in self.gateways]

    async def admit(self, ask, gateway=0, **known):
        """Let a request in that arrives now, of which more may be known."""
        context = RequestContext("r", **{"arrived": self.clock.now(), **known})
        return await self.gateways[gateway].admission.admit(ask, context)

    async def ask(self, gateway=0, *, stream=True, abandon_after=None, max_tokens=None):
        """One request as a client makes it; says what went wrong in the tally."""
        params = {"max_tokens": max_tokens} if max_tokens else {}
        ask = Ask("agent", [{"role": "user", "content": "my bill"}], params, stream)
        try:
            call = await self.admit(ask, gateway)
            try:
                await call.start()
                text, seen = b"", 0
                async for chunks in call.chunks():
                    text += b"".join(chunk.members for chunk in chunks)
                    seen += len(chunks)
                    if abandon_after is not None and seen >= abandon_after:
                        break
            finally:
                await call.aclose()
        except Exception as error:  # noqa: BLE001 - every failure is counted, whatever it is
            self.tally.failed.append(error)
            return None
        self.tally.answered += 1
        self.tally.usage = self.tally.usage.plus(call.usage)
        self.tally.releases.add(call.release.number)
        if any(
            hop.engine not in {e[:12] for e in call.release.engines.values()}
            for hop in call.hops
            if hop.engine
        ):
            self.tally.mixed += 1
        return call

    def metered(self):
        return total(usage for gateway in self.gateways for usage in gateway.meter.totals.values())

    def leases(self):
        return sum(sum(follower.routing.leases.values()) for follower in self.followers)
