"""The Grafana dashboard: every query shows something when it is run on what `/metrics` really says."""

import asyncio
import math
from pathlib import Path

import pytest

from runtime.core.budgets.budget import CapKind, Unit, Window
from runtime.testing.model_sets import content_of
from tests.promql import Scrapes, queries_of
from tests.unit.observe.test_metrics import scrape
from tests.unit.traffic.test_spending import ACME, WORST, ask, cap, limited
from tests.unit.world import document

DASHBOARD = Path(__file__).resolve().parents[3] / "serve_configs" / "grafana" / "interlock.json"
QUERIES = queries_of(DASHBOARD)


def busy():
    """A set whose requests leave a trace of everything that there is to count."""
    declared = document(1, writer={"load": "10ms", "tokens": 6})
    agent = declared["chains"]["agent"]
    declared["chains"]["small"] = agent | {"max_tokens": 1}
    agent |= {"degrade_to": "small", "latency_budget": {"triage": "1ms", "answer": "20ms"}}
    return declared


@pytest.fixture(scope="module")
def scrapes():
    """Two scrapes, 60 s apart, of a busy application that swaps in between."""
    import looptime

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(_scrapes())


async def _scrapes():
    limits = cap(WORST, Unit.TOKENS, Window.MINUTE), cap(4, Unit.REQUESTS, Window.MINUTE, kind=CapKind.LIMIT)
    async with limited(*limits, gateways=2, wanted=content_of(busy())) as world:
        first, begun = await scrape(world), world.clock.now()
        for _ in range(6):
            await ask(world, caller=ACME)
        for gateway in (0, 1):
            await world.ask(gateway)
        wanted = content_of(busy() | {"rollback_window": "30s"})
        world.want(wanted)
        await world.until_live(wanted)
        await world.ask(1)
        await asyncio.sleep(2)
        return Scrapes(first, await scrape(world), world.clock.now() - begun)


def of_vllm_alone(query):
    """Say whether a query is about metrics that scripted engines have not: `tests/e2e` runs those, too."""
    told = ("vllm:prompt_tokens", "vllm:generation_tokens", "vllm:num_requests_running")
    return "vllm:" in query and not any(name in query for name in told)


# A query whose metric, label or grouping there is not, or that rates a gauge, would show nothing or nonsense.
@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_every_query_shows_something(scrapes, panel, query):
    shown = scrapes.show(query)
    if of_vllm_alone(query):
        return
    assert shown, panel
    assert not all(math.isnan(value) for value in shown.values()), (panel, shown)


# A check that cannot fail is worth nothing: it finds a metric, a label and a rate that make no sense.
def test_the_check_finds_mistakes(scrapes):
    assert scrapes.show("interlock_no_such_metric") == {}
    assert scrapes.show('interlock_hops_total{step="no such step"}') == {}
    for wrong in ("sum by (tenant) (interlock_hops_total)", "rate(interlock_live_release[5m])", "sum(x"):
        with pytest.raises((AssertionError, ValueError)):
            scrapes.show(wrong)


# What is shown is right: as many requests as there were, and quantiles between what was measured.
def test_values(scrapes):
    hops = scrapes.show('increase(interlock_hops_total{step="answer",outcome="ok"}[1h])')
    assert sum(hops.values()) == sum(
        scrapes.show('increase(interlock_requests_total{outcome="ok"}[1h])').values()
    )
    pace = "sum by (le) (rate(interlock_hop_duration_seconds_bucket{step='answer'}[5m]))"
    (p50,) = scrapes.show(f"histogram_quantile(0.5, {pace})").values()
    assert 0.05 < p50 < 0.25  # 50 ms to the first token, then 20 ms for each of five


# Every panel has a title, a unit, and lies where no other lies.
def test_layout():
    import json

    board = json.loads(DASHBOARD.read_text())
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
