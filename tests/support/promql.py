"""The part of PromQL that the alert rules use, evaluated on a list of pages of metrics.

This module finds the alerts that fire, without Prometheus. It is simpler in two points: ``rate``
takes the samples that it sees as its whole range, and no sample is stale before five minutes.
"""

import math
import operator
import re
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.pace import scaled

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
#: The values of a page, by name and labels.
Page = Mapping[tuple[str, Labels], float]
LOOK_BACK_S = 300.0


def page_of(text: str) -> Page:
    """Return the samples of a page of metrics."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def page_at(address: str) -> Page:
    """Return the current page of metrics at an address."""
    with urllib.request.urlopen(address, timeout=scaled(20)) as page:
        return page_of(page.read().decode())


def summed(page: Page, name: str, *by: str) -> dict[tuple[str, ...], float]:
    """Return the sums of a metric by some of its labels."""
    sums: dict[tuple[str, ...], float] = {}
    for (found, labels), value in page.items():
        if found == name:
            key = tuple(dict(labels)[label] for label in by)
            sums[key] = sums.get(key, 0.0) + value
    return sums


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert of a rules file."""

    name: str
    expr: Any
    for_s: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def alerts_of(file: Path) -> list[Alert]:
    """Return the alerts of a rules file."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return [
        Alert(
            name=rule["alert"],
            expr=promql.parse(rule["expr"]),
            for_s=promql.parse_duration(rule["for"]).total_seconds() if "for" in rule else 0.0,
            labels=rule["labels"],
            annotations=rule["annotations"],
        )
        for group in groups
        for rule in group["rules"]
    ]


@dataclass
class History:
    """Pages in the order in which they were read.

    Attributes:
        pages: For each page, the time in seconds and the samples.
    """

    pages: list[tuple[float, Page]] = field(default_factory=list)

    def firing(self, alerts: Sequence[Alert]) -> set[str]:
        """Return the names of the alerts that fire after the last page."""
        since: dict[tuple[str, Labels], float] = {}
        firing: set[str] = set()
        for at, _ in self.pages:
            true = {(alert.name, labels) for alert in alerts for labels in self._true(alert, at)}
            since = {key: since.get(key, at) for key in true}
            for_s = {alert.name: alert.for_s for alert in alerts}
            firing = {name for (name, _), first in since.items() if at - first >= for_s[name]}
        return firing

    def _true(self, alert: Alert, at: float) -> Vector:
        found = self.value(alert.expr, at)
        assert not isinstance(found, float), f"{alert.name} is a number"
        return found

    def value(self, expr: Any, at: float) -> Vector | float:
        """Return the value of an expression at a moment.

        Raises:
            NotImplementedError: If the expression is outside the part that the rules use.
        """
        match expr:
            case promql.ParenExpr():
                return self.value(expr.expr, at)
            case promql.NumberLiteral():
                return float(expr.val)
            case promql.VectorSelector():
                return self._now(expr, at)
            case promql.AggregateExpr():
                return self._aggregate(expr, at)
            case promql.BinaryExpr():
                return _combine(str(expr.op), self.value(expr.lhs, at), self.value(expr.rhs, at))
            case promql.Call():
                return self._call(expr, at)
        raise NotImplementedError(expr.prettify())

    def _now(self, selector: Any, at: float) -> Vector:
        if selector.offset is not None:
            at -= selector.offset.total_seconds()
        seen = [page for when, page in self.pages if at - LOOK_BACK_S < when <= at]
        return _select(seen[-1], selector) if seen else {}

    def _call(self, call: Any, at: float) -> Vector:
        name, args = call.func.name, call.args
        if name in ("rate", "increase"):
            per_s = self._rates(args[0], at)
            range_s = args[0].range.total_seconds() if name == "increase" else 1.0
            return {labels: rate * range_s for labels, rate in per_s.items()}
        if name == "histogram_quantile":
            buckets = self.value(args[1], at)
            assert not isinstance(buckets, float)
            return _quantiles(args[0].val, buckets)
        if name == "absent":
            return {} if self.value(args[0], at) else {frozenset(): 1.0}
        raise NotImplementedError(name)

    def _rates(self, matrix: Any, at: float) -> Vector:
        range_s = matrix.range.total_seconds()
        series: dict[Labels, list[tuple[float, float]]] = {}
        for when, page in self.pages:
            if at - range_s < when <= at:
                for labels, value in _select(page, matrix.vector_selector).items():
                    series.setdefault(labels, []).append((when, value))
        rates: Vector = {}
        for labels, points in series.items():
            if len(points) > 1:
                steps = pairwise(points)
                grown = sum(b - a if b >= a else b for (_, a), (_, b) in steps)
                rates[labels] = grown / (points[-1][0] - points[0][0])
        return rates

    def _aggregate(self, expr: Any, at: float) -> Vector:
        found = self.value(expr.expr, at)
        assert not isinstance(found, float)
        by = set(expr.modifier.labels) if expr.modifier else set()
        groups: dict[Labels, list[float]] = {}
        for labels, value in found.items():
            key = frozenset((name, text) for name, text in labels if name in by)
            groups.setdefault(key, []).append(value)
        return {labels: AGGREGATIONS[str(expr.op)](values) for labels, values in groups.items()}


def _select(page: Page, selector: Any) -> Vector:
    return {
        labels: value
        for (name, labels), value in page.items()
        if name == selector.name
        and all(_matches(matcher, dict(labels)) for matcher in selector.matchers.matchers)
    }


def _matches(matcher: Any, labels: Mapping[str, str]) -> bool:
    text = labels.get(matcher.name, "")
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        return bool((text == matcher.value) == (matcher.op == promql.MatchOp.Equal))
    fits = re.fullmatch(matcher.value, text) is not None
    return bool(fits == (matcher.op == promql.MatchOp.Re))


def _divide(a: float, b: float) -> float:
    return a / b if b else math.nan if not a or math.isnan(a) else math.copysign(math.inf, a)


AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "min": min,
    "max": max,
}
ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide}
COMPARISONS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


def _combine(op: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if op in SETS:
        assert not isinstance(left, float)
        assert not isinstance(right, float)
        return SETS[op](left, right)
    if isinstance(left, float) and isinstance(right, float):
        return float(ARITHMETIC[op](left, right))
    keys = right if isinstance(left, float) else left
    assert not isinstance(keys, float)
    pairs = {
        labels: (_at(left, labels), _at(right, labels))
        for labels in keys
        if _has(left, labels) and _has(right, labels)
    }
    if op in ARITHMETIC:
        return {labels: float(ARITHMETIC[op](a, b)) for labels, (a, b) in pairs.items()}
    kept = {labels: pair for labels, pair in pairs.items() if COMPARISONS[op](*pair)}
    return {labels: b if isinstance(left, float) else a for labels, (a, b) in kept.items()}


SETS: Mapping[str, Callable[[Vector, Vector], Vector]] = {
    "and": lambda a, b: {labels: value for labels, value in a.items() if labels in b},
    "or": lambda a, b: {**b, **a},
    "unless": lambda a, b: {labels: value for labels, value in a.items() if labels not in b},
}


def _has(side: Vector | float, labels: Labels) -> bool:
    return isinstance(side, float) or labels in side


def _at(side: Vector | float, labels: Labels) -> float:
    return side if isinstance(side, float) else side[labels]


def _quantiles(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        groups.setdefault(rest, []).append((bound, count))
    return {labels: _quantile(share, sorted(group)) for labels, group in groups.items()}


def _quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float:
    rank = share * buckets[-1][1]
    if not rank:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return math.nan
