"""What one gateway has counted of its requests and hops, for Prometheus.

Labels are ``chain``, ``step``, ``engine``, ``release``, ``purpose`` and ``outcome``, whose values model
sets declare or the code lists; what clients choose (a tenant, a session, a model that there is not) never
labels anything. Times are seconds.

To count something more, add its family to those of its kind (requests, budgets, hops), and to
``GatewayMetrics`` a method that says when.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram

from runtime.core.budgets.budget import Cap
from runtime.core.metering.ledger import HopTag, Outcome
from runtime.core.metering.outcomes import REFUSALS, RequestOutcome
from runtime.core.metering.series import WINDOW, Family
from runtime.core.metering.usage import HopRecord, Usage
from runtime.core.model_set.digest import SHORT
from runtime.observe.exposition import families_of

PREFIX = "interlock"

BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Seconds: from a classification on a GPU to the longest answer that anybody waits for."""

_REQUEST = ("chain", "release", "outcome")
_HOP = ("chain", "step", "engine", "release", "purpose")
_TIME = ("chain", "step", "purpose")


class GatewayMetrics:
    """Counts since the gateway started."""

    def __init__(self) -> None:
        self.changes = 0
        """Grows with everything that is counted."""
        self._registry = CollectorRegistry()
        self._requests = _Requests(self._registry)
        self._budgets = _Budgets(self._registry)
        self._hops = _Hops(self._registry)
        self._releases: set[int] = set()

    # -- what is counted ----------------------------------------------------------------------------

    def request(
        self, chain: str, release: int, outcome: RequestOutcome, total_s: float, own_s: float
    ) -> None:
        """Count a request that was let in; no hop took ``own_s`` of the ``total_s`` that it took."""
        self.changes += 1
        self._requests.ended.labels(chain, self._see(release), outcome.value).inc()
        self._requests.duration.labels(chain).observe(total_s)
        self._requests.own.labels(chain).observe(own_s)
        self._budgets.count(chain, outcome)

    def turned_away(self, chain: str, release: int, outcome: RequestOutcome) -> None:
        """Count a request that was not let in; ``chain`` is empty and ``release`` 0 if none has taken it."""
        self.changes += 1
        self._requests.ended.labels(chain, self._see(release) if release else "", outcome.value).inc()
        self._budgets.count(chain, outcome)

    def degraded(self, chain: str, outcome: RequestOutcome) -> None:
        """Count a request that was refused, and goes on to the chain that ``chain`` degrades to."""
        self.changes += 1
        self._budgets.refusals.labels(chain, outcome.value).inc()
        self._budgets.degraded.labels(chain).inc()

    def warned(self, cap: Cap, share: int) -> None:  # noqa: ARG002 - neither can be a label: tenants have caps
        """Count a warning of a budget or a limit; called in the thread that spends."""
        self.changes += 1
        self._budgets.warnings.inc()

    def hop(self, tag: HopTag, outcome: Outcome, record: HopRecord) -> None:
        """Count a hop that has ended."""
        self.changes += 1
        labels = tag.chain, tag.step, tag.engine[:SHORT], self._see(tag.release), str(tag.purpose)
        self._hops.count(labels, outcome, record)

    # -- what is shown of it ------------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        """Yield everything that was counted, a family at a time: there may be thousands of series."""
        return families_of(self._registry, PREFIX)

    def _see(self, release: int) -> str:
        """Return the label of a release. With a new one, that of the oldest goes: the manager has it."""
        if release not in self._releases:
            self._releases.add(release)
            if len(self._releases) > WINDOW:
                oldest = min(self._releases - {release})
                self._releases.discard(oldest)
                gone = {"release": str(oldest)}
                self._requests.ended.remove_by_labels(gone)
                self._hops.forget(gone)
        return str(release)


class _Requests:
    """How requests have ended, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, times = _counter(registry), _times(registry)
        self.ended = counter("requests", "Requests that have ended, by how.", _REQUEST)
        self.duration = times(
            "request_duration_seconds", "From a request's arrival to the end of its answer.", ("chain",)
        )
        self.own = times("request_gateway_seconds", "What of a request's duration no hop took.", ("chain",))


class _Budgets:
    """What budgets and limits have done to requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = _counter(registry)
        self.refusals = counter(
            "budget_refusals", "Requests that a budget or a limit had no room for.", ("chain", "outcome")
        )
        self.degraded = counter(
            "degraded_requests", "Requests that went to the chain that theirs degrades to.", ("chain",)
        )
        self.warnings = counter("budget_warnings", "Times that spending has passed 80 % or 95 % of a cap.")

    def count(self, chain: str, outcome: RequestOutcome) -> None:
        """Count a request that has ended if it was refused."""
        if outcome in REFUSALS:
            self.refusals.labels(chain, outcome.value).inc()


class _Hops:
    """How hops have ended, what they have spent, and how long they took. ``labels`` has ``_HOP``'s labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, times = _counter(registry), _times(registry)
        self._ended = counter("hops", "Hops that have ended, by how.", (*_HOP, "outcome"))
        self._tokens = (  # in the order of ``Usage``
            counter("prompt_tokens", "Prompt tokens, cached ones included.", _HOP),
            counter("completion_tokens", "Generated tokens, reasoning included.", _HOP),
            counter("cached_prompt_tokens", "Prompt tokens that a prefix cache had.", _HOP),
            counter("reasoning_tokens", "Generated tokens that no answer shows.", _HOP),
        )
        self._found: dict[tuple[str, ...], list[Counter]] = {}
        """Token counters by their labels: to look each up takes longer than to count."""
        self._overruns = counter(
            "latency_budget_overruns", "Hops that took longer than their share.", ("chain", "step")
        )
        self._duration = times("hop_duration_seconds", "From a hop's start to its end.", _TIME)
        self._queue = times("hop_queue_seconds", "What a hop waited before a replica began with it.", _TIME)
        self._first = times(
            "hop_time_to_first_token_seconds", "From a hop's start to its first token.", _TIME
        )
        self._pace = times("hop_inter_token_seconds", "Mean time between the tokens of a hop.", _TIME)

    def count(self, labels: tuple[str, ...], outcome: Outcome, record: HopRecord) -> None:
        """Count a hop that has ended."""
        self._ended.labels(*labels, outcome.value).inc()
        self._spend(labels, record.usage)
        self._time(labels, record, came=outcome is Outcome.OK or record.usage.completion > 0)
        if record.overrun_ms:
            self._overruns.labels(*labels[:2]).inc()

    def _spend(self, labels: tuple[str, ...], usage: Usage) -> None:
        counters = self._found.get(labels)
        if counters is None:
            counters = self._found[labels] = [family.labels(*labels) for family in self._tokens]
        for counter, tokens in zip(counters, usage, strict=True):
            if tokens:
                counter.inc(tokens)

    def _time(self, labels: tuple[str, ...], record: HopRecord, *, came: bool) -> None:
        """Note a hop's times; those of its first token only if it ``came``."""
        step = labels[0], labels[1], labels[4]
        self._duration.labels(*step).observe(record.duration_ms / 1000.0)
        if came:
            self._queue.labels(*step).observe(record.queue_ms / 1000.0)
            self._first.labels(*step).observe(record.ttft_ms / 1000.0)
        if record.inter_token_ms is not None:
            self._pace.labels(*step).observe(record.inter_token_ms / 1000.0)

    def forget(self, gone: dict[str, str]) -> None:
        """Let go of the series with these labels."""
        self._found.clear()
        for family in (self._ended, *self._tokens):
            family.remove_by_labels(gone)


def _counter(registry: CollectorRegistry) -> partial[Counter]:
    return partial(Counter, namespace=PREFIX, registry=registry)


def _times(registry: CollectorRegistry) -> partial[Histogram]:
    return partial(Histogram, namespace=PREFIX, registry=registry, buckets=BUCKETS)
