"""PromQL over two scrapes of one application, parsed by Prometheus' grammar: what a dashboard's queries
would show, without a Prometheus. What it does not know of PromQL it refuses, so nothing passes unevaluated.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections import defaultdict

import promql_parser as ast

from tests.prometheus import counts_of, samples_of

_VARIABLES = {"$__rate_interval": "5m", "$chain": ".*"}
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_COMPARISONS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "==": operator.eq}
_AGGREGATES = {"sum": sum, "max": max, "min": min, "count": len}


def queries_of(path):
    """Every query of a Grafana dashboard, by the title of its panel."""
    board = json.loads(path.read_text())
    found = [(panel["title"], t["expr"]) for panel in board["panels"] for t in panel.get("targets", ())]
    return found + [(note["name"], note["expr"]) for note in board["annotations"]["list"]]


class Scrapes:
    """Two scrapes, `seconds` apart. A vector is a dict of labels (with `__name__`) to values."""

    def __init__(self, first, last, seconds):
        self._seconds = seconds
        self._first = samples_of(first)
        self._last = {labels | {("__name__", name)}: v for (name, labels), v in samples_of(last).items()}
        self._counts = {labels | {("__name__", name)} for name, labels in counts_of(last)}

    def show(self, query):
        """The vector that a query gives at the time of the last scrape."""
        for variable, value in _VARIABLES.items():
            query = query.replace(variable, value)
        return self._value(ast.parse(query))

    def _value(self, node):
        match node:
            case ast.NumberLiteral():
                return node.val
            case ast.ParenExpr():
                return self._value(node.expr)
            case ast.VectorSelector():
                return self._select(node)
            case ast.Call():
                return self._call(node)
            case ast.AggregateExpr():
                return self._aggregate(node)
            case ast.BinaryExpr():
                return self._combine(node)
        raise NotImplementedError(type(node))

    def _select(self, node):
        assert node.offset is None
        assert node.at is None
        matchers = [(m.op, m.name, m.value) for m in node.matchers.matchers]
        if node.name is not None:
            matchers.append((ast.MatchOp.Equal, "__name__", node.name))
        return {s: v for s, v in self._last.items() if all(_matches(dict(s), *m) for m in matchers)}

    def _call(self, node):
        name = node.func.name
        if name == "histogram_quantile":
            return _quantiles(self._value(node.args[0]), self._value(node.args[1]))
        assert isinstance(node.args[0], ast.MatrixSelector), node.prettify()
        selected = self._select(node.args[0].vector_selector)
        if name == "changes":
            return {_bare(s): float(self._before(s) != v) for s, v in selected.items()}
        assert name in ("rate", "increase"), f"unknown function {name}"
        assert selected.keys() <= self._counts, f"{name} of a gauge: {node.prettify()}"
        over = self._seconds if name == "rate" else 1.0
        return {_bare(s): (v - self._before(s)) / over for s, v in selected.items()}

    def _before(self, series):
        return self._first.get((dict(series)["__name__"], _bare(series)), 0.0)

    def _aggregate(self, node):
        vector, kind = self._value(node.expr), str(node.op)
        groups = defaultdict(list)
        for series, value in vector.items():
            labels = set() if node.modifier is None else _kept(node.modifier, series, vector)
            groups[frozenset(labels)].append(value)
        return {labels: float(_AGGREGATES[kind](values)) for labels, values in groups.items()}

    def _combine(self, node):
        left, right, sign = self._value(node.lhs), self._value(node.rhs), str(node.op)
        if isinstance(left, dict) and isinstance(right, dict):
            return {s: _apply(sign, v, w) for s, v, w in _pairs(left, right, node.modifier)}
        if sign in _COMPARISONS:
            assert isinstance(right, float)
            return {s: v for s, v in left.items() if _COMPARISONS[sign](v, right)}
        if isinstance(left, dict):
            return {_bare(s): _apply(sign, v, right) for s, v in left.items()}
        return {_bare(s): _apply(sign, left, v) for s, v in right.items()}


def _matches(labels, kind, name, value):
    given = labels.get(name, "")
    match kind:
        case ast.MatchOp.Equal:
            return given == value
        case ast.MatchOp.NotEqual:
            return given != value
        case ast.MatchOp.Re:
            return re.fullmatch(value, given) is not None
    return re.fullmatch(value, given) is None


def _bare(series):
    return frozenset((name, value) for name, value in series if name != "__name__")


def _kept(modifier, series, vector):
    """The labels that an aggregation keeps. To group by one that no series has is a mistake."""
    if modifier.type == ast.AggModifierType.Without:
        return {(n, v) for n, v in _bare(series) if n not in modifier.labels}
    known = {name for labels in vector for name, _ in labels}
    assert set(modifier.labels) <= known, f"by ({modifier.labels}), where there is {known}"
    return {(n, v) for n, v in series if n in modifier.labels}


def _pairs(left, right, modifier):
    """Yield a series and two values for each on the left that has its match on the right."""
    matching = modifier.matching if modifier else None
    many = modifier is not None and modifier.card == ast.VectorMatchCardinality.ManyToOne

    def key(series):
        names = set() if matching is None else set(matching.labels)
        on = matching is not None and matching.type == ast.LabelModifierType.Include
        return frozenset((n, v) for n, v in _bare(series) if (n in names) == on)

    others = {key(series): value for series, value in right.items()}
    assert len(others) == len(right), "the right side matches more than once"
    found = [(_bare(s), v, others[key(s)]) for s, v in left.items() if key(s) in others]
    assert many or len({key(s) for s in left}) == len(left), "the left side matches more than once"
    return found


def _apply(sign, one, other):
    if sign == "/":
        return one / other if other else math.nan
    return _ARITHMETIC[sign](one, other)


def _quantiles(share, vector):
    """Where the quantile is in each histogram, or NaN in one that counts nothing."""
    histograms = defaultdict(list)
    for series, value in vector.items():
        labels = dict(series)
        bound = float(labels.pop("le"))
        histograms[frozenset(labels.items())].append((bound, value))
    return {labels: _quantile(share, sorted(buckets)) for labels, buckets in histograms.items()}


def _quantile(share, buckets):
    assert buckets[-1][0] == math.inf, "a histogram without its last bucket"
    rank, lower, below = share * buckets[-1][1], 0.0, 0.0
    if not rank:
        return math.nan
    for bound, count in buckets:
        if count >= rank:
            return lower if bound == math.inf else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    raise AssertionError("buckets that do not grow")
