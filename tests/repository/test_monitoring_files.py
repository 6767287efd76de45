"""What Prometheus and Grafana are given under docker/ names metrics and labels that exist."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import yaml

from app.telemetry import metrics
from app.telemetry.metrics import WORKER_METRICS, ClusterMetric
from tests.support.markdown import ROOT
from tests.support.promql import alerts_of

DOCKER = ROOT / "docker"
RULES = DOCKER / "prometheus" / "alerts.yaml"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "agentchord.json"
PAGE = ROOT / "docs" / "monitoring.md"
#: What Prometheus itself knows.
THEIRS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
TEMPLATE = re.compile(r"\$labels\.(\w+)")
LEGEND = re.compile(r"{{\s*(\w+)\s*}}")


def our_metrics() -> dict[str, tuple[tuple[str, ...], str]]:
    """Labels and meaning of every metric by name, as in app/telemetry/metrics.py."""
    counted = {
        each.name: (each.labels, each.help + (" (histogram)" if each.buckets else ""))
        for each in WORKER_METRICS.values()
    }
    read = [each for each in vars(metrics).values() if isinstance(each, ClusterMetric)]
    return counted | {each.name: (each.labels, each.help) for each in read}


def series() -> dict[str, set[str]]:
    """Labels of everything that can be asked for."""
    found = {name: set(labels) for name, (labels, _) in our_metrics().items()} | THEIRS
    for each in WORKER_METRICS.values():
        if each.buckets:
            labels = set(found.pop(each.name))
            found |= {f"{each.name}_{part}": labels for part in ("sum", "count")}
            found[f"{each.name}_bucket"] = labels | {"le"}
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression, of every alert and every panel."""
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in (*board["panels"], *board["annotations"]["list"]):
        for target in panel.get("targets", [panel]):
            if "expr" in target:
                yield panel.get("title", "annotation"), target["expr"]


def parsed(text: str) -> Any:
    return promql.parse(text.replace("$__rate_interval", "1m"))


def inner(expr: Any) -> Iterator[Any]:
    """All parts of an expression."""
    found: list[Any] = []
    promql.walk(expr, found.append)
    return iter(found)


def labels_of(expr: Any) -> set[str]:
    """Labels that the result of an expression has."""
    match expr:
        case promql.ParenExpr(expr=part) | promql.MatrixSelector(vector_selector=part):
            return labels_of(part)
        case promql.VectorSelector(name=str(name)):
            return series().get(name, set())
        case promql.AggregateExpr():
            return set(expr.modifier.labels) if expr.modifier else set()
        case promql.BinaryExpr():
            return labels_of(expr.lhs) | labels_of(expr.rhs)
        case promql.Call():
            inside = set().union(*(labels_of(arg) for arg in expr.args))
            return inside - {"le"} if expr.func.name == "histogram_quantile" else inside
    return set()


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    known = series()
    wrong = []
    for place, text in expressions():
        for part in inner(parsed(text)):
            if isinstance(part, promql.VectorSelector):
                asked = {matcher.name for matcher in part.matchers.matchers}
                if part.name not in known or asked - known[part.name]:
                    wrong.append((place, str(part)))
            if isinstance(part, promql.AggregateExpr) and part.modifier:
                missing = set(part.modifier.labels) - labels_of(part.expr)
                wrong += [(place, label) for label in missing]

    assert wrong == []


def test_what_alerts_and_legends_show_is_a_label_of_their_expression() -> None:
    wrong = [
        (alert.name, label)
        for alert in alerts_of(RULES)
        for text in alert.annotations.values()
        for label in TEMPLATE.findall(text)
        if label not in labels_of(alert.expr)
    ]
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        wrong += [
            (panel["title"], label)
            for target in panel.get("targets", ())
            for label in LEGEND.findall(target["legendFormat"])
            if label not in labels_of(parsed(target["expr"]))
        ]

    assert wrong == []


def test_every_alert_says_how_bad_it_is_and_what_it_is() -> None:
    alerts = alerts_of(RULES)

    assert len({alert.name for alert in alerts}) == len(alerts)
    assert {alert.labels["severity"] for alert in alerts} == {"info", "warning", "critical"}
    assert all(alert.annotations["summary"] for alert in alerts)


def test_the_parts_of_the_dashboard_do_not_overlap_and_fill_its_width() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells

    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len(places) == 24 * (1 + max(y for _, y in places))


def test_compose_gives_prometheus_and_grafana_the_files_that_exist() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text("utf-8"))
    mounted = [
        volume.partition(":")[0]
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
        if volume.startswith("./")
    ]
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    port = services["worker"]["environment"]["AGENTCHORD_MONITORING__METRICS_PORT"]

    assert all((DOCKER / path).exists() for path in mounted)
    assert jobs["agentchord-exporter"]["static_configs"][0]["targets"] == ["exporter:9464"]
    assert jobs["agentchord-workers"]["dns_sd_configs"][0]["port"] == port
    assert set(jobs["agentchord-workers"]["dns_sd_configs"][0]["names"]) <= set(services)
    asked = {job for place, text in expressions() for job in re.findall(r'job="([^"]+)"', text)}
    assert asked <= set(jobs)


def test_the_page_about_monitoring_has_every_metric_as_it_is_declared_and_every_alert() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(agentchord_\w+)` \| ([^|]*) \| (.*) \|$", text, re.MULTILINE)

    described = {
        name: (tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, labels, meaning in rows
    }
    alerts = re.findall(r"^\| `([A-Z]\w+)` \|", text, re.MULTILINE)

    assert described == our_metrics()
    assert alerts == [alert.name for alert in alerts_of(RULES)]
