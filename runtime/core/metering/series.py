"""Prometheus' data model, and counts of many processes added up so that none ever goes backwards.

A process sends all that it has counted since it started. The difference to its last snapshot is added to
the sums, so they keep the counts of processes that are gone, and nothing is added twice if an answer was
lost and is sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""

WINDOW = 20
"""Of how many releases and engines that are gone, the newest ones, counts are shown."""

GONE_KEPT_SECONDS = 86_400.0
"""For how long the last snapshot of a silent process is kept: it may only be slow, or cut off, and
all that it has counted would be added once more. By age, for a hiccup may silence any number at once."""

_FORMAT = 1


class Series(NamedTuple):
    """One line of Prometheus' text format but for its value: ``name{labels}``."""

    name: str
    labels: Labels = ()

    def value_of(self, label: str) -> str | None:
        """Return the value of a label, None without one."""
        return next((value for name, value in self.labels if name == label), None)

    def labelled(self, name: str, value: str) -> Series:
        """Return the series with one label more."""
        return Series(self.name, tuple(sorted((*self.labels, (name, value)))))


class MetricKind(StrEnum):
    """What the values of a family mean."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    """How much there is now; that of several processes is the sum."""
    PEAK = "peak"
    """How much there is now; that of several processes is the greatest, as of a share."""

    @property
    def counts(self) -> bool:
        """Say whether values only grow while a process lives."""
        return self in (MetricKind.COUNTER, MetricKind.HISTOGRAM)

    def merged(self, one: float, other: float) -> float:
        """Return the value of two things together. None has a value below 0."""
        return max(one, other) if self is MetricKind.PEAK else one + other


class Family(NamedTuple):
    """All series of one metric. The name of a counter is without its ``_total``."""

    name: str
    kind: MetricKind
    help: str
    samples: Mapping[Series, float]


class MetricsSnapshot(NamedTuple):
    """Everything that a process has counted since it started."""

    source: str
    """Its name, unique for ever."""
    sequence: int
    """Counts its snapshots: of two that overtook each other on the way, the later one holds."""
    families: list[Family]

    def labelled(self, name: str, value: str) -> MetricsSnapshot:
        """Return the same with one label more on each series."""
        return self._replace(
            families=[
                family._replace(samples={s.labelled(name, value): v for s, v in family.samples.items()})
                for family in self.families
            ]
        )


@dataclass(frozen=True)
class _Source:
    """The last snapshot of a process."""

    sequence: int = -1
    counted: Mapping[Series, float] = field(default_factory=dict)
    present: Mapping[str, Mapping[Series, float]] = field(default_factory=dict)
    """Its gauges, by family."""
    gone: float | None = None
    """Since when it has not been among those that live; None while it is."""


class Sums:
    """The counts of all processes that there ever were, and the gauges of those that there are."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[MetricKind, str]] = {}
        self._totals: dict[str, dict[Series, float]] = {}
        self._sources: dict[str, _Source] = {}
        """In the order of their last snapshots."""

    def take(self, snapshot: MetricsSnapshot) -> None:
        """Add what a process has counted since its last snapshot."""
        known = self._sources.pop(snapshot.source, _Source())
        self._sources[snapshot.source] = known
        if snapshot.sequence <= known.sequence:
            return
        counted: dict[Series, float] = {}
        present: dict[str, Mapping[Series, float]] = {}
        for family in snapshot.families:
            self._kinds[family.name] = family.kind, family.help
            if not family.kind.counts:
                present[family.name] = family.samples
                continue
            self._add(self._totals.setdefault(family.name, {}), known.counted, family.samples)
            counted.update(family.samples)
        self._sources[snapshot.source] = _Source(snapshot.sequence, counted, present)

    @staticmethod
    def _add(
        totals: dict[Series, float], last: Mapping[Series, float], samples: Mapping[Series, float]
    ) -> None:
        for series, value in samples.items():
            before = last.get(series)
            # Less than before: the process has dropped the series meanwhile, and has begun it anew.
            more = value if before is None or value < before else value - before
            if more or before is None:
                totals[series] = totals.get(series, 0.0) + more

    def retain(self, living: Collection[str], now: float) -> None:
        """Forget the gauges of all other processes and, after ``GONE_KEPT_SECONDS``, their last snapshots.

        ``now`` is in seconds since the Unix epoch, for it outlasts this process.
        """
        for source, known in list(self._sources.items()):
            if source in living:
                if known.gone is not None:
                    self._sources[source] = replace(known, gone=None)
                continue
            since = now if known.gone is None else min(known.gone, now)
            if now - since > GONE_KEPT_SECONDS:
                del self._sources[source]
            else:
                self._sources[source] = _Source(known.sequence, known.counted, gone=since)

    def prune(self, engines: Collection[str]) -> None:
        """Let go of the series of releases and of engines that have been gone for long.

        Those of the ``WINDOW`` newest releases stay, those of ``engines``, and of as many others.
        """
        releases: set[int] = set()
        others: dict[str, None] = {}
        for series in self._series():
            release, engine = series.value_of("release"), series.value_of("engine")
            if release:
                releases.add(int(release))
            elif engine and engine not in engines:
                others[engine] = None
        old = {str(number) for number in sorted(releases)[:-WINDOW]}
        gone = set(list(others)[:-WINDOW])
        if old or gone:
            for name, totals in self._totals.items():
                self._totals[name] = {s: v for s, v in totals.items() if not _is_of(s, old, gone)}

    def _series(self) -> Iterator[Series]:
        for totals in self._totals.values():
            yield from totals

    def families(self) -> list[Family]:
        """Return everything, added up."""
        found = []
        for name, (kind, text) in self._kinds.items():
            samples = self._totals.get(name, {}) if kind.counts else self._present(name, kind)
            if samples:
                found.append(Family(name, kind, text, samples))
        return found

    def _present(self, name: str, kind: MetricKind) -> dict[Series, float]:
        found: dict[Series, float] = {}
        for source in self._sources.values():
            for series, value in source.present.get(name, {}).items():
                found[series] = kind.merged(found.get(series, 0.0), value)
        return found

    def copy(self) -> Sums:
        """Return a copy of the sums as they are now, for another thread to read."""
        other = Sums()
        other._kinds = dict(self._kinds)
        other._totals = {name: dict(totals) for name, totals in self._totals.items()}
        other._sources = dict(self._sources)
        return other

    # -- to keep it ---------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Return what outlasts this process: all counts, and the share of each process in them."""
        numbers = {series: n for n, series in enumerate(dict.fromkeys(self._every_series()))}
        return {
            "format": _FORMAT,
            "series": [[series.name, *map(list, series.labels)] for series in numbers],
            "families": {
                name: [kind, text, {numbers[s]: v for s, v in self._totals.get(name, {}).items()}]
                for name, (kind, text) in self._kinds.items()
            },
            "sources": {
                name: [source.sequence, {numbers[s]: v for s, v in source.counted.items()}, source.gone]
                for name, source in self._sources.items()
            },
        }

    def _every_series(self) -> Iterator[Series]:
        yield from self._series()
        for source in self._sources.values():
            yield from source.counted

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> Sums:
        """Return the sums that ``as_json`` returned, which may have been through JSON. Raises ValueError."""
        if kept.get("format") != _FORMAT:
            raise ValueError(f"metrics of format {kept.get('format')!r}; this Interlock knows {_FORMAT} only")
        series = [Series(name, tuple((k, v) for k, v in labels)) for name, *labels in kept["series"]]
        sums = cls()
        for name, (kind, text, totals) in kept["families"].items():
            sums._kinds[name] = MetricKind(kind), text
            if MetricKind(kind).counts:
                sums._totals[name] = {series[int(n)]: value for n, value in totals.items()}
        for name, (sequence, counted, *gone) in kept["sources"].items():  # older sums have no time
            known = {series[int(n)]: v for n, v in counted.items()}
            sums._sources[name] = _Source(sequence, known, gone=gone[0] if gone else None)
        return sums


def _is_of(series: Series, releases: Collection[str], engines: Collection[str]) -> bool:
    release = series.value_of("release")
    return release in releases if release else series.value_of("engine") in engines


def counted(name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    """Return a counter; ``samples`` are labels and values."""
    return Family(name, MetricKind.COUNTER, text, _samples(f"{name}_total", samples))


def measured(name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    """Return a gauge; ``samples`` are labels and values."""
    return Family(name, MetricKind.GAUGE, text, _samples(name, samples))


def _samples(name: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> dict[Series, float]:
    return {Series(name, tuple(sorted(labels.items()))): value for labels, value in samples}
