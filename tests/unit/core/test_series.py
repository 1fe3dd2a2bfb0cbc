"""Adding up what many processes have counted: nothing lost that was told, nothing twice, nothing back."""

import json
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.core.metering.series import (
    GONE_KEPT_SECONDS,
    WINDOW,
    Family,
    MetricKind,
    MetricsSnapshot,
    Series,
    Sums,
    counted,
    measured,
)
from runtime.core.metering.usage import Usage
from runtime.errors import Fenced
from runtime.observe.exposition import text_of
from runtime.observe.vllm_metrics import uncounted, vllm_families
from runtime.store.metrics import MetricsStore
from tests.prometheus import problems_of, samples_of, total_of


def told(source, sequence, value, gauge=0.0, **labels):
    families = [counted("c", "C.", [(labels, value)]), measured("g", "G.", [({}, gauge)])]
    return MetricsSnapshot(source, sequence, families)


def sum_of(sums, name="c"):
    return sum(sum(f.samples.values()) for f in sums.families() if f.name == name)


# Whatever processes do (count, tell, tell again, die) and however often the manager is replaced by one that
# knows what was kept when it was last shown: no shown count goes back, and all that was told is in it.
@given(
    st.lists(st.sampled_from(["count", "tell", "again", "die", "show", "restart"]), max_size=40), st.randoms()
)
def test_counts_never_go_back(steps, chance):
    sums, kept, shown, number = Sums(), Sums().as_json(), 0.0, 0
    living = {}
    for step in steps:
        name = chance.choice([*living, f"p{number}"])
        number += name not in living
        process = living.setdefault(name, {"value": 0.0, "sequence": 0, "last": None})
        match step:
            case "count":
                process["value"] += chance.randrange(5)
            case "tell":
                process["sequence"] += 1
                process["last"] = told(name, process["sequence"], process["value"])
                sums.take(process["last"])
            case "again" if process["last"] is not None:
                sums.take(process["last"])
            case "die":
                del living[name]
            case "show":
                assert sum_of(sums) >= shown
                shown, kept = sum_of(sums), json.loads(json.dumps(sums.as_json()))
            case "restart":
                sums = Sums.of_json(kept)
                assert sum_of(sums) == shown


# What every process has told is in the sum exactly, those that are gone included.
def test_the_sum_is_exact():
    sums, chance, values = Sums(), random.Random(1), {}
    for sequence in range(500):
        name = f"p{chance.randrange(30)}"
        values[name] = values.get(name, 0) + chance.randrange(9)
        sums.take(told(name, sequence, values[name]))
    sums.retain({"p1"}, 0.0)
    assert sum_of(sums) == sum(values.values())


# Of two tellings that overtake each other, the later one holds.
def test_an_overtaken_telling_changes_nothing():
    sums = Sums()
    sums.take(told("p", 2, 5.0))
    sums.take(told("p", 1, 3.0))
    sums.take(told("p", 3, 6.0))
    assert sum_of(sums) == 6.0


# A process that has dropped a series and begun it anew has counted all that it then tells.
def test_a_series_that_begins_anew():
    sums = Sums()
    sums.take(told("p", 1, 5.0, release="1"))
    sums.take(told("p", 2, 1.0, release="2"))
    sums.take(told("p", 3, 7.0, release="1"))
    assert sum_of(sums) == 5.0 + 1.0 + 7.0
    sums.take(told("p", 4, 2.0, release="1"))
    assert sum_of(sums) == 15.0


# A gauge is that of the processes that there are: the sum, or of a share the greatest.
def test_gauges():
    sums = Sums()
    for name, value in (("a", 1.0), ("b", 3.0)):
        peak = Family("p", MetricKind.PEAK, "P.", {Series("p"): value})
        sums.take(MetricsSnapshot(name, 1, [measured("g", "G.", [({}, value)]), peak]))
    assert (sum_of(sums, "g"), sum_of(sums, "p")) == (4.0, 3.0)
    sums.retain({"a"}, 0.0)
    assert (sum_of(sums, "g"), sum_of(sums, "p")) == (1.0, 1.0)


# The last word of a process that is not heard of is kept for a day, of however many there are, also over a
# restart of the manager: when they come back, nothing is added twice. After that it is forgotten.
def test_what_is_kept_of_the_gone():
    sums = Sums()
    for number in range(100):
        sums.take(told(f"p{number}", 1, 1000.0))
    for at in (0.0, GONE_KEPT_SECONDS / 2, GONE_KEPT_SECONDS):
        sums.retain({"p0"}, at)
        sums = Sums.of_json(orjson.loads(orjson.dumps(sums.as_json(), option=orjson.OPT_NON_STR_KEYS)))
    for number in range(50):
        sums.take(told(f"p{number}", 2, 1000.0))
    assert sum_of(sums) == 100_000.0
    sums.retain({f"p{number}" for number in range(50)}, GONE_KEPT_SECONDS + 1.0)
    assert set(sums.as_json()["sources"]) == {f"p{number}" for number in range(50)}
    sums.retain(set(), GONE_KEPT_SECONDS + 2.0)
    assert len(sums.as_json()["sources"]) == 50
    assert sum_of(sums) == 100_000.0


# What an earlier Interlock has kept of its processes, without since when they are gone, is read.
def test_sources_of_before():
    sums = Sums()
    sums.take(told("p", 1, 5.0))
    kept = sums.as_json()
    kept["sources"] = {name: source[:2] for name, source in kept["sources"].items()}
    known = Sums.of_json(kept)
    known.take(told("p", 2, 6.0))
    assert sum_of(known) == 6.0


# Series of releases and engines that are gone leave the view when enough others have gone after them.
def test_the_view_is_bounded():
    sums = Sums()
    for number in range(1, 101):
        families = told("p", number, 1.0, release=str(number)).families
        families += [counted("vllm:x", "X.", [({"engine": f"e{number}"}, 1.0)])]
        sums.take(MetricsSnapshot(f"p{number}", 1, families))
    sums.prune({"e3"})
    found = [series for family in sums.families() for series in family.samples]
    assert {int(s.value_of("release")) for s in found if s.value_of("release")} == set(
        range(101 - WINDOW, 101)
    )
    newest = {f"e{n}" for n in range(101 - WINDOW, 101)}
    assert {s.value_of("engine") for s in found if s.value_of("engine")} == newest | {"e3"}


# What is kept in a database is there for the next manager; an older one writes no more.
def test_the_store(engine):
    sums = Sums()
    sums.take(told("p", 4, 3.5, release="1"))
    first, second = MetricsStore(engine, 1), MetricsStore(engine, 2)
    assert first.load().as_json() == Sums().as_json()
    first.save(sums)
    second.save(sums)
    with pytest.raises(Fenced):
        first.save(Sums())
    known = second.load()
    assert json.loads(json.dumps(known.as_json())) == json.loads(json.dumps(sums.as_json()))
    known.take(told("p", 5, 4.0, release="1"))
    assert sum_of(known) == 4.0


# Counts that another version has kept, or nobody can read, are no reason not to start.
@pytest.mark.parametrize("kept", [b"garbage", None])
def test_counts_that_cannot_be_read(engine, kept, monkeypatch):
    store = MetricsStore(engine, 1)
    if kept is None:
        monkeypatch.setattr(Sums, "as_json", lambda _: {"format": 99})
        store.save(Sums())
        monkeypatch.undo()
    else:
        monkeypatch.setattr("runtime.store.metrics.zlib.compress", lambda *_: kept)
        store.save(Sums())
    assert store.load().families() == []


# vLLM's metrics are told without the labels of a process, its engines within one process added up.
def test_vllm_families():
    registry = CollectorRegistry()
    labels = ["model_name", "engine"]
    tokens = Counter("vllm:generation_tokens", "Tokens.", labels, registry=registry)
    cache = Gauge("vllm:kv_cache_usage_perc", "Share.", labels, registry=registry)
    reasons = Counter("vllm:request_success", "Ended.", [*labels, "finished_reason"], registry=registry)
    times = Histogram("vllm:e2e_request_latency_seconds", "Time.", labels, registry=registry, buckets=(1, 5))
    Gauge("vllm:cache_config_info", "Settings.", ["block_size"], registry=registry).labels("16").set(1)
    Counter("python_gc", "Not vLLM's.", registry=registry)
    for index in "01":
        tokens.labels("m", index).inc(5)
        reasons.labels("m", index, "stop").inc()
        cache.labels("m", index).set(0.5)
        times.labels("m", index).observe(2.0)
    sums = Sums()
    for replica in ("a", "b"):
        sums.take(MetricsSnapshot(replica, 1, vllm_families(registry)).labelled("engine", "e1"))
    text = text_of(sums.families()).decode()
    assert problems_of(text) == []
    assert total_of(text, "vllm:generation_tokens_total", engine="e1") == 20
    assert total_of(text, "vllm:request_success_total", finished_reason="stop") == 4
    assert total_of(text, "vllm:e2e_request_latency_seconds_bucket", le="5.0") == 4
    assert total_of(text, "vllm:kv_cache_usage_perc") == 0.5
    assert {name for name, _ in samples_of(text) if not name.startswith("vllm:")} == set()
    assert "model_name" not in text
    assert "_info" not in text


# What vLLM has generated and no call has counted is a gauge; rightly 0, and none where vLLM does not count.
@pytest.mark.parametrize(("tally", "left"), [(9, 1.0), (10, 0.0), (12, 0.0)])
def test_uncounted_tokens(tally, left):
    registry = CollectorRegistry()
    Counter("vllm:generation_tokens", "x", ["engine"], registry=registry).labels("0").inc(10)
    (family,) = uncounted(vllm_families(registry), Usage(5, tally))
    assert list(family.samples.values()) == [left]
    assert uncounted([], Usage(5, tally)) == []
