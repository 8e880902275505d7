"""The alerts and the dashboard speak of metrics and labels that a node really has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshfold.mesh.telemetry.metrics import render
from prometheus_client.parser import text_string_to_metric_families
from test_health import WELL

FOLDER = Path(__file__).parents[2] / "docs/monitoring"
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
LABELS: dict[str, set[str]] = {}
for family in text_string_to_metric_families(render([WELL]).decode()):
    for sample in family.samples:
        LABELS.setdefault(sample.name, set()).update(sample.labels)

#: A metric with what stands in braces behind it.
SELECTOR = re.compile(r"(meshfold_\w+)(?:\{([^}]*)\})?")


def check(expression: str) -> None:
    """Every metric exists, and every label that chooses or groups is one of a metric of the expression."""
    found = SELECTOR.findall(expression)
    assert found, expression
    for metric, chosen in found:
        assert metric in LABELS, f"{metric} is no metric"
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen):
            assert label in LABELS[metric], f"{metric} has no label {label}"
    known = set().union(*(LABELS[metric] for metric, _ in found))
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= known, expression


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_what_exists_and_says_what_is_wrong(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    known = set().union(*(LABELS[metric] for metric, _ in SELECTOR.findall(rule["expr"])))
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known, text
    assert rule["annotations"]["summary"]


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: str(panel["title"]))
def test_a_panel_shows_what_exists(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        check(target["expr"].replace("$node", "hub").replace("$route", "r"))
        known = set().union(*(LABELS[metric] for metric, _ in SELECTOR.findall(target["expr"])))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert [one["name"] for one in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for variable in DASHBOARD["templating"]["list"]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr] # it has this form
        assert label in LABELS[metric]


def test_a_query_of_what_does_not_exist_is_found() -> None:
    for wrong in (
        "meshfold_nothing > 0",
        'meshfold_members{color="red"}',
        "sum by (color) (meshfold_members)",
    ):
        with pytest.raises(AssertionError):
            check(wrong)
