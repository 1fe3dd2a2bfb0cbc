"""A whole Interlock in one process and in virtual time: controller, fake cluster, gateways, clients."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from runtime.control.controller import Controller
from runtime.control.fake import FakeCluster
from runtime.control.journal import MemoryJournal
from runtime.core import events as ev
from runtime.core.digest import Content
from runtime.core.specs import parse
from runtime.core.usage import Usage, total
from runtime.traffic.admission import Admission
from runtime.traffic.chain import ChatRequest
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter


class LoopClock:
    """The event loop's time as both clocks, so that virtual time moves everything."""

    def now(self):
        return asyncio.get_running_loop().time()

    def wall(self):
        return asyncio.get_running_loop().time()


def document(version=1, *, writer=None, **changes):
    """A model set of two fake engines; ``version`` changes the writer and nothing of the router."""
    return {
        "name": "support",
        "engines": {
            "router": {"kind": "fake", "time_to_first_token": "5ms"},
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
                        "generate": {"engine": "writer", "prompt": "{{ steps.triage.choice }} v" + str(version)},
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
    return Content.of(parse(document(version, **options), f"v{version}.yaml", lambda name: name), {})


class LocalManager:
    """The manager as a gateway sees it, without a network; ``away`` plays a manager that is gone."""

    def __init__(self, controller):
        self.controller = controller

    async def next_table(self, report):
        return await self.controller.hub.next_table(report)

    async def report(self, report):
        self.controller.hub.report(report)

    async def leave(self, gateway):
        self.controller.hub.leave(gateway)

    async def status(self):
        return {}


@dataclass
class Tally:
    """What the clients saw."""

    answered: int = 0
    failed: list = field(default_factory=list)
    mixed: int = 0
    usage: Usage = Usage()
    releases: set = field(default_factory=set)


class World:
    """Use as ``async with World() as world``."""

    def __init__(self, gateways=2, journal=None, cluster=None):
        self.clock = LoopClock()
        self.journal = journal or MemoryJournal()
        self.cluster = cluster or FakeCluster(self.clock)
        self.controller = Controller(self.journal, self.cluster, self.clock, gateway_silence_s=15.0)
        self.manager = LocalManager(self.controller)
        self.meters = [Meter() for _ in range(gateways)]
        self.followers = [
            Follower(f"gateway-{n}", self.manager, self.cluster, meter, heartbeat_s=1.0)
            for n, meter in enumerate(self.meters)
        ]
        self.admissions = [
            Admission(follower.routing, self.clock, meter)
            for follower, meter in zip(self.followers, self.meters, strict=True)
        ]
        self.tally = Tally()
        self._tasks = []

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self.controller.run())]
        self._tasks += [asyncio.create_task(follower.run()) for follower in self.followers]
        return self

    async def __aexit__(self, *exc):
        for task in reversed(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def want(self, wanted, change=None, source="set.yaml"):
        event = ev.Wanted(at=self.clock.wall(), change=change or wanted.digest, source=source, content=wanted)
        self.controller.post(event)

    @property
    def state(self):
        return self.controller.state

    async def until(self, condition, seconds=600):
        async with asyncio.timeout(seconds):
            while not condition(self.state):
                await asyncio.sleep(0.05)

    async def until_live(self, wanted, seconds=600):
        await self.until(lambda s: s.live is not None and s.live.content.digest == wanted.digest, seconds)
        await self.until(lambda s: s.live.acknowledged is not None, seconds)

    async def ask(self, gateway=0, *, stream=True, abandon_after=None, max_tokens=None):
        """One request as a client makes it; says what went wrong in the tally."""
        body = {"max_tokens": max_tokens} if max_tokens else {}
        request = ChatRequest("r", "agent", [{"role": "user", "content": "my bill"}], body, stream)
        try:
            call = self.admissions[gateway].admit(request)
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
        if any(hop.engine not in call.release.engines.values() for hop in call.hops):
            self.tally.mixed += 1
        return call

    def metered(self):
        return total(usage for meter in self.meters for usage in meter.totals.values())

    def leases(self):
        return sum(sum(follower.routing.leases.values()) for follower in self.followers)
