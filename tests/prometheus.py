"""Reading Prometheus' text as strictly as `promtool check metrics` does, and comparing two scrapes."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict

from prometheus_client.parser import text_string_to_metric_families

LABELS = {"chain", "step", "engine", "release", "purpose", "outcome", "process", "loop"}

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_UNITS = re.compile(
    r"_(ms|milliseconds|us|microseconds|minutes|hours|s|sec|secs|percent|kb|mb|kilobytes|megabytes)(_|$)"
)
_TYPES = re.compile(r"_(counter|gauge|histogram|summary|count|sum|bucket|created|info)$")


def families_of(text):
    return list(text_string_to_metric_families(text))


def samples_of(text):
    """Every series and its value."""
    found = {}
    for family in families_of(text):
        for sample in family.samples:
            series = sample.name, frozenset(sample.labels.items())
            assert series not in found, f"{series} is there twice"
            found[series] = sample.value
    return found


def counts_of(text):
    """Every series whose value must never go backwards."""
    growing = {f.name for f in families_of(text) if f.type in ("counter", "histogram")}
    stems = {name + end for name in growing for end in ("_total", "_bucket", "_count", "_sum")}
    return {series: value for series, value in samples_of(text).items() if series[0] in stems}


def fallen(before, after):
    """The counts of `before` that are lower in `after`, or are not there any more."""
    later = counts_of(after)
    return {s: (v, later.get(s)) for s, v in counts_of(before).items() if later.get(s, -1.0) < v}


def total_of(text, name, **labels):
    """The sum of the series of this name that have these labels."""
    wanted = set(labels.items())
    return sum(v for (known, has), v in samples_of(text).items() if known == name and wanted <= has)


def problems_of(text):
    """What `promtool check metrics` would complain of, and what Interlock promises of names and labels."""
    assert text.endswith("\n")
    return [
        *_ill_described(text.splitlines()),
        *(problem for family in families_of(text) for problem in _ill_named(family)),
        *(p for family in families_of(text) if family.type == "histogram" for p in _ill_counted(family)),
    ]


def _ill_described(lines):
    """HELP and TYPE come once for each metric, with its first series, and its series stand together."""
    described = Counter(tuple(line.split()[1:3]) for line in lines if line.startswith("#"))
    yield from (f"{what} of {name} comes {n} times" for (what, name), n in described.items() if n > 1)
    typed = {name for what, name in described if what == "TYPE"}
    yield from (f"{name} has no HELP" for name in typed if ("HELP", name) not in described)
    yield from (
        f"{line} says nothing" for line in lines if line.startswith("# HELP") and len(line.split()) < 4
    )
    order = []
    for line in lines:
        stem = re.split(r"[{ ]", line.removeprefix("# TYPE ").removeprefix("# HELP "), maxsplit=1)[0]
        stem = stem if stem in typed else re.sub(r"_(bucket|count|sum)$", "", stem)
        if not order or order[-1] != stem:
            order.append(stem)
    yield from (f"{stem} is in {n} places" for stem, n in Counter(order).items() if n > 1)
    yield from (f"{stem} has no TYPE" for stem in order if stem not in typed)


def _ill_named(family):
    if family.name.startswith("vllm:"):
        own = family.name.removeprefix("vllm:")
        yield from [f"{family.name} is no name"] if not _NAME.fullmatch(own) else []
        return
    if not family.name.startswith("interlock_") or not _NAME.fullmatch(family.name):
        yield f"{family.name} is no name of Interlock's"
    if _UNITS.search(family.name):
        yield f"{family.name} is in no base unit"
    if _TYPES.search(family.name):
        yield f"{family.name} ends in the name of a type"
    for sample in family.samples:
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}[
            family.type
        ]
        if sample.name not in [family.name + end for end in ends]:
            yield f"{sample.name} is no {family.type} {family.name}"
        if family.type == "gauge" and sample.name.endswith("_total"):
            yield f"{sample.name} is a gauge"
        unknown = set(sample.labels) - LABELS - ({"le"} if sample.name.endswith("_bucket") else set())
        yield from (f"{sample.name} has label {label}" for label in unknown)


def _ill_counted(family):
    """Buckets grow up to +Inf, which counts as many as there are."""
    buckets, counts = defaultdict(list), {}
    for sample in family.samples:
        labels = frozenset((k, v) for k, v in sample.labels.items() if k != "le")
        if sample.name == family.name + "_bucket":
            buckets[labels].append((float(sample.labels["le"]), sample.value))
        if sample.name == family.name + "_count":
            counts[labels] = sample.value
    for labels, found in buckets.items():
        if found != sorted(found) or [v for _, v in found] != sorted(v for _, v in found):
            yield f"the buckets of {family.name} {set(labels)} do not grow"
        if found[-1] != (math.inf, counts.get(labels)):
            yield f"{family.name} {set(labels)} counts otherwise than its last bucket"
