"""`/metrics`: the whole application from any gateway, in Prometheus' terms."""

import asyncio
import contextlib
import itertools
import math

import httpx
import pytest

from runtime.core.budgets.budget import CapKind, Unit, Window
from runtime.core.metering.ledger import HopTag, Outcome
from runtime.core.metering.outcomes import RequestOutcome
from runtime.core.metering.series import WINDOW
from runtime.core.metering.usage import HopRecord, Usage
from runtime.errors import Fenced, QuotaExhausted, RateLimited, StoreUnavailable
from runtime.observe.exposition import CONTENT_TYPE, text_of
from runtime.observe.metrics import BUCKETS, GatewayMetrics
from runtime.testing.model_sets import content_of
from tests.prometheus import LABELS, counts_of, families_of, problems_of, samples_of, total_of
from tests.unit.api.test_api import JSON, app_of, post
from tests.unit.core.test_latency import STEPS, five_hops
from tests.unit.traffic.test_spending import WORST, ask, cap, limited
from tests.unit.world import World, content, document

QUICK = {"load": "10ms", "tokens": 6}
BODY = {"messages": [{"content": "my bill"}]}
SESSIONS = 10_000
HOP = HopRecord("answer", "e", Usage(3, 4, 2, 1), 1.0, 20.0, 900.0, 0.0, 800.0, 200.0, 300.0, 50.0)


@contextlib.asynccontextmanager
async def live(wanted=None, *, gateways=2):
    """A world in which a release is live."""
    async with World(gateways=gateways) as world:
        wanted = wanted or content(1, writer=QUICK)
        world.want(wanted)
        await world.until_live(wanted)
        yield world


def client_of(world, gateway=0, host="127.0.0.1", **settings):
    app = app_of(world, gateway=gateway, **settings)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, client=(host, 4000)), base_url="http://127.0.0.1"
    )


async def scrape(world, gateway=0):
    return (await world.gateways[gateway].follower.metrics()).decode()


def answered(text):
    return total_of(text, "interlock_requests_total", outcome="ok")


# Each gateway tells of the requests of all, of the manager's releases, and of the engines' own counts.
async def test_any_gateway_tells_of_the_whole_application():
    async with live() as world:
        for gateway, requests in ((0, 2), (1, 3)):
            for _ in range(requests):
                await world.ask(gateway, stream=True)
        await asyncio.sleep(2)
        for gateway in (0, 1):
            text = await scrape(world, gateway)
            assert answered(text) == 5
            assert total_of(text, "interlock_hops_total", step="answer", purpose="live") == 5
            assert total_of(text, "interlock_completion_tokens_total", purpose="live") == 5 * 6
            assert total_of(text, "interlock_hop_duration_seconds_count") == 10
            assert total_of(text, "interlock_live_release") == 1
            assert total_of(text, "interlock_gateways_acknowledged") == 2
            assert total_of(text, "interlock_engines_loaded") == 2
            own = await world.cluster.metered_ever()
            assert total_of(text, "vllm:generation_tokens_total") == own.completion
            told = total_of(text, "interlock_completion_tokens_total")
            assert told == own.completion  # requests and warm-ups are one account


# The gateway that is asked tells its own counts as they are, not as of its last heartbeat.
async def test_the_asked_gateway_is_up_to_date():
    async with live() as world:
        await world.ask(1)
        assert answered(await scrape(world, 1)) == 1


# The text passes what promtool checks; names, units and labels are as Interlock promises.
async def test_the_text_is_well_formed():
    async with live() as world:
        await world.ask(0)
        await world.ask(1, stream=False)
        async with client_of(world) as client:
            answer = await client.get("/metrics")
        assert answer.headers["content-type"] == CONTENT_TYPE
        assert problems_of(answer.text) == []
        names = {family.name for family in families_of(answer.text)}
        assert {"interlock_requests", "interlock_hop_queue_seconds", "vllm:prompt_tokens"} <= names


# What clients choose makes no series: not tenants, sessions and ids, and not models that there are not.
async def test_series_are_bounded():
    metrics = GatewayMetrics()

    def count(number):
        tag = HopTag(
            f"h{number}", f"q{number}", f"r{number}", f"tenant-{number % 1000}", f"key-{number % 1000}"
        )
        tag = tag._replace(session=f"s{number}", chain="agent", step="answer", release=1, engine="e" * 64)
        metrics.hop(tag, Outcome.OK, HOP)
        metrics.request("agent", 1, RequestOutcome.OK, 1.0, 0.1)

    count(0)
    first = samples_of(text_of(metrics.families()).decode())
    for number in range(1, SESSIONS):
        count(number)
    text = text_of(metrics.families()).decode()
    assert samples_of(text).keys() == first.keys()
    assert total_of(text, "interlock_hops_total") == SESSIONS
    async with live() as world, client_of(world) as client:
        for number in range(20):
            assert (await post(client, model=f"made-up-{number}")).status_code == 404
        text = await scrape(world)
        assert total_of(text, "interlock_requests_total", outcome="invalid") == 20
        assert sum(name == "interlock_requests_total" for name, _ in samples_of(text)) == 1
        assert "made-up" not in text


# Of releases that are gone, the newest stay in view, in a gateway's memory, too.
async def test_old_releases_leave_the_view():
    metrics = GatewayMetrics()
    for release in range(1, 3 * WINDOW):
        metrics.hop(HopTag("h", chain="agent", step="s", release=release, engine="e"), Outcome.OK, HOP)
        metrics.request("agent", release, RequestOutcome.OK, 1.0, 0.1)
    found = {dict(labels).get("release") for _, labels in samples_of(text_of(metrics.families()).decode())}
    assert found == {None, *map(str, range(2 * WINDOW, 3 * WINDOW))}


# A release that is gone back to counts on, however many newer ones there were.
def test_an_old_release_is_back():
    metrics = GatewayMetrics()
    for release in (*range(2, WINDOW + 2), 1, 1):
        metrics.request("agent", release, RequestOutcome.OK, 1.0, 0.1)
    (requests,) = (family for family in metrics.families() if family.name == "interlock_requests")
    assert {s.value_of("release"): v for s, v in requests.samples.items()}["1"] == 2


# Buckets are fit for a classification of a millisecond and for an answer of ten minutes.
def test_buckets():
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 600.0)
    assert all(1.5 <= later / sooner <= 3.0 for sooner, later in itertools.pairwise(BUCKETS))


# -- how requests end ---------------------------------------------------------------------------------


async def outcomes(world):
    """How many requests ended how."""
    ended = {}
    for (name, labels), value in samples_of(await scrape(world)).items():
        if name == "interlock_requests_total":
            outcome = dict(labels)["outcome"]
            ended[outcome] = ended.get(outcome, 0) + value
    return ended


# A request is counted once, by how it ended: answered, refused, left by its client, out of time, failed.
async def test_each_request_is_counted_once_by_how_it_ended():
    async with live(content_of(five_hops(deadline="4s"))) as world, client_of(world) as client:
        assert (await post(client)).status_code == 200
        assert (await post(client, messages=[{"role": "user", "content": "x " * 9000}])).status_code == 400
        await world.ask(abandon_after=1)
        replica = world.cluster._replicas(world.state.live.content.engines["writer"])[0]
        replica._script = replica._script.model_copy(update={"time_to_first_token": 9.0})
        assert (await post(client)).status_code == 504
        replica._script = replica._script.model_copy(update={"fail": "generate", "time_to_first_token": 0.1})
        assert (await post(client)).status_code == 503
        assert await outcomes(world) == {"ok": 1, "invalid": 1, "cancelled": 1, "deadline": 1, "error": 1}
        text = await scrape(world)
        assert total_of(text, "interlock_request_duration_seconds_count") == 5
        assert total_of(text, "interlock_hops_total", outcome="deadline", step=STEPS[0]) == 1
        assert total_of(text, "interlock_hop_time_to_first_token_seconds_count", step=STEPS[0]) == 2


# What no hop took of a request's time is told apart from what hops took, and is not lost.
async def test_a_request_is_the_sum_of_its_hops_and_of_the_gateway():
    async with live(content_of(five_hops())) as world:
        await world.ask()
        text = await scrape(world)
        hops = total_of(text, "interlock_hop_duration_seconds_sum")
        own = total_of(text, "interlock_request_gateway_seconds_sum")
        assert hops == pytest.approx(2.5)
        assert total_of(text, "interlock_request_duration_seconds_sum") == pytest.approx(hops + own)


# A hop over its share is counted against its step, however long the release is gone.
async def test_overruns():
    async with live(content_of(five_hops(latency_budget={"first": 400, "second": "1s"}))) as world:
        await world.ask()
        text = await scrape(world)
        assert total_of(text, "interlock_latency_budget_overruns_total", chain="agent", step="first") == 1
        assert total_of(text, "interlock_latency_budget_overruns_total") == 1


# A request that a budget has no room for is counted as refused, and as degraded if its chain names another.
@pytest.mark.parametrize("degrades", [True, False])
async def test_refusals(degrades):
    declared = document(1, writer=QUICK)
    declared["chains"]["small"] = declared["chains"]["agent"] | {"max_tokens": 1}
    if degrades:
        declared["chains"]["agent"] |= {"degrade_to": "small"}
    async with limited(cap(WORST), wanted=content_of(declared)) as world:
        assert not isinstance(await ask(world), Exception)
        assert isinstance(await ask(world), QuotaExhausted)
        text = await scrape(world)
        assert total_of(text, "interlock_degraded_requests_total", chain="agent") == (1 if degrades else 0)
        refused = total_of(text, "interlock_budget_refusals_total", outcome="insufficient_quota")
        assert refused == (2 if degrades else 1)
        assert total_of(text, "interlock_budget_warnings_total") == 2  # of 80 % and of 95 %
        assert await outcomes(world) == {"ok": 1, "insufficient_quota": 1}


# A limit's refusal has a name of its own: whoever watches knows that coming again helps.
async def test_rate_limits():
    async with limited(cap(1, Unit.REQUESTS, Window.MINUTE, kind=CapKind.LIMIT)) as world:
        assert not isinstance(await ask(world), Exception)
        assert isinstance(await ask(world), RateLimited)
        assert await outcomes(world) == {"ok": 1, "rate_limited": 1}


# What cannot be read is counted as invalid, as what names no chain is.
async def test_bodies_that_cannot_be_read():
    async with World(gateways=1) as world, client_of(world) as client:
        for body in (b"{", b'{"model": 1}', b"x" * 5 * 1024 * 1024):
            answer = await client.post("/v1/chat/completions", content=body, headers=JSON)
            assert answer.status_code in {400, 413}
        assert await outcomes(world) == {"invalid": 3}


# Before anything is live, requests are counted, too, under no release.
async def test_nothing_is_live():
    async with World(gateways=1) as world, client_of(world) as client:
        await asyncio.sleep(1)
        assert (await post(client)).status_code == 503
        assert await outcomes(world) == {"unavailable": 1}
        assert total_of(await scrape(world), "interlock_live_release") == 0


# -- who may read it, and when there is nothing to read -----------------------------------------------


# It is read as the admin API is: on this host without a key, and with the admin key from anywhere.
async def test_access():
    async with live(gateways=1) as world:
        for host, settings, headers, status in [
            ("127.0.0.1", {}, {}, 200),
            ("10.1.2.3", {}, {}, 403),
            ("127.0.0.1", {}, {"x-forwarded-for": "10.1.2.3"}, 403),
            ("10.1.2.3", {"admin_key": "s3cret"}, {"authorization": "Bearer s3cret"}, 200),
            ("127.0.0.1", {"admin_key": "s3cret"}, {"authorization": "Bearer other"}, 403),
        ]:
            async with client_of(world, host=host, **settings) as client:
                assert (await client.get("/metrics", headers=headers)).status_code == status


# Without the manager there are no numbers rather than too small ones, and it does not take for ever.
@pytest.mark.parametrize("hangs", [True, False])
async def test_the_manager_is_away(hangs, monkeypatch):
    async with live() as world, client_of(world) as client:
        if hangs:
            monkeypatch.setattr(world.metrics, "save", lambda _: asyncio.Event().wait())
        else:
            await world.stop_manager()
        begun = world.clock.now()
        assert (await client.get("/metrics")).status_code == 503
        assert world.clock.now() - begun < 9.0


# A store that is away costs nobody the numbers; a manager that another has replaced tells none.
@pytest.mark.parametrize(("error", "status"), [(StoreUnavailable, 200), (Fenced, 500)])
async def test_the_store_refuses(error, status, monkeypatch):
    async with live() as world, client_of(world) as client:

        async def refuse(_sums):
            raise error("no")

        monkeypatch.setattr(world.metrics, "save", refuse)
        assert (await client.get("/metrics")).status_code == status


# The labels are those that were promised, and none is one that clients fill.
async def test_labels():
    async with live() as world:
        await world.ask()
        own = [labels for (name, labels) in samples_of(await scrape(world)) if name.startswith("interlock_")]
        assert {label for labels in own for label, _ in labels} - {"le"} == LABELS
        assert all(math.isfinite(value) for value in counts_of(await scrape(world)).values())
