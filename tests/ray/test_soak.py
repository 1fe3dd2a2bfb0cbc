"""A hundred swaps back to back under load: nothing fails, nothing mixes, nothing is left over."""

import asyncio
import time
from statistics import median, mode

import aiohttp
import pytest

from benchmarks.parts.open_loop import LoadGenerator, Plan
from benchmarks.parts.report import is_mixed
from tests.cluster import release_of
from tests.ray.conftest import scripted

SWAPS = 100

GROWTH = 0.02
"""Share by which a process may grow over the last fifty swaps at most."""

TOKENS = 120
"""Tokens of the long streams, 10 ms apart: some span a swap."""


def version(number):
    """A version of the set that warms up quickly; its streams may be long.

    Every third version changes the writer, so that an application comes and one goes; those in between
    change the prompt.
    """
    document = scripted(number // 3, load="50ms", tokens=TOKENS)
    answer = document["chains"]["support-agent"]["steps"][1]["generate"]
    answer |= {"sampling": {"max_tokens": 5}, "prompt": f"{number}: {{{{ steps.triage.choice }}}}"}
    return document


def processes(interlock):
    """Return the processes that live through all swaps, by what they are."""
    gateways = interlock.replicas("interlock", "Gateway")
    named = {f"gateway {n}": process for n, process in enumerate(gateways)}
    return named | {"manager": interlock.replicas("interlock", "SwapManager")[0]}


class Growth:
    """Memory of each process after each swap, in bytes."""

    def __init__(self, watched):
        self._watched = watched
        self._rss = {name: [] for name in watched}

    def note(self):
        for name, process in self._watched.items():
            self._rss[name].append(process.memory_info().rss)

    def of_last_half(self):
        """Return by which share each process has grown in the last half: its last tenth against its first."""
        tenth = SWAPS // 10
        halves = {name: rss[len(rss) // 2 :] for name, rss in self._rss.items()}
        return {name: median(h[-tenth:]) / median(h[:tenth]) - 1.0 for name, h in halves.items()}


async def wear_in(interlock):
    """Make as many calls as Ray's own memory grows over in a new process; after them it stays."""
    body = {"model": "support-agent", "messages": [{"role": "user", "content": "my bill"}], "max_tokens": 1}

    async def get(path, json=None):
        call = session.post(path, json=json) if json else session.get(path)
        async with call as answer:
            assert answer.status == 200
            await answer.read()

    async with aiohttp.ClientSession(interlock.url) as session:
        for _ in range(150):
            chats = [get("/v1/chat/completions", body) for _ in range(16)]
            await asyncio.gather(*chats, *(get("/admin/v1/status") for _ in range(8)))


def at_rest(status):
    """Say whether the last swap is over and no request is under way."""
    over = all(release["state"] in ("live", "retired") for release in status["releases"])
    return over and not any(gateway["leases"] for gateway in status["gateways"])


def held(status, watched):
    """Return what Interlock holds: tasks, clients of engines, and file descriptors."""
    tasks = {g["id"]: (g["tasks"], g["clients"]) for g in status["gateways"]}
    files = {name: process.num_fds() for name, process in watched.items()}
    return tasks | {"manager": tuple(status["manager"].values())}, files


def held_at_rest(interlock, watched):
    """Return what is held most of the time at rest: the tasks and clients, and the fewest files.

    A status is a request itself, and has tasks; a gateway's poll ends every ten seconds, and for a moment the
    manager has none of it. Gateways count their tasks once a heartbeat: samples closer together would all be
    of one moment.
    """
    seen = []
    for _ in range(20):
        seen.append(held(interlock.until(at_rest, 30), watched))
        time.sleep(0.25)
    tasks, files = zip(*seen, strict=True)
    return (
        {key: mode(each[key] for each in tasks) for key in tasks[0]},
        {key: min(each[key] for each in files) for key in files[0]},
    )


# A hundred swaps with two gateways, under short requests, long streams and clients that go away: no
# request fails or mixes, no application, task, client, lease or file is left, and memory is level.
@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_hundred_swaps(interlock, write_set):
    watched = processes(interlock)
    growth = Growth(watched)
    short = Plan(interlock.url, "support-agent", ["my bill", "a bug"], rate=4, max_tokens=10, seed=7)
    long = Plan(
        *(interlock.url, "support-agent", ["my bill"]),
        rate=0.5,
        stream_share=1.0,
        abandon_share=0.3,
        max_tokens=TOKENS,
        seed=8,
    )
    loads = [LoadGenerator(short), LoadGenerator(long)]
    interlock.swap_to(write_set("soak-0", version(1000)))
    await wear_in(interlock)
    before = await asyncio.to_thread(held_at_rest, interlock, watched)
    offered = [asyncio.create_task(load.run()) for load in loads]
    engines, numbers = {}, set()
    for number in range(1, SWAPS + 1):
        path = write_set(f"soak-{number}", version(1000 + number))
        status = await asyncio.to_thread(interlock.swap_to, path)
        engines |= {release["number"]: release for release in status["releases"]}
        numbers.add(status["live"])
        growth.note()
    for load in loads:
        load.stop()
    await asyncio.gather(*offered)
    records = [record for load in loads for record in load.records]
    assert [record.error for record in records if record.error] == []
    answered = [record for record in records if not record.abandoned]
    assert sum(is_mixed(record, {"releases": list(engines.values())}) for record in answered) == 0
    assert len(numbers) == SWAPS
    assert len(records) - len(answered) > 5
    status = await asyncio.to_thread(interlock.until, at_rest, 60)
    live = {e["digest"][:12] for e in release_of(status, status["live"])["engines"].values()}
    assert interlock.engine_apps() == live
    tasks, files = await asyncio.to_thread(held_at_rest, interlock, watched)
    assert tasks == before[0]
    assert all(files[name] - count < SWAPS // 10 for name, count in before[1].items()), (files, before[1])
    assert max(growth.of_last_half().values()) < GROWTH, growth.of_last_half()
