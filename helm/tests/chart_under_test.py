"""The chart as the tests see it: a copy with a stand-in for the NATS chart, rendered by Helm's own code, no cluster."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

__all__ = ("BASE", "CHART", "RELEASE", "ChartCopy", "Objects", "merged", "pods")

CHART: Final = Path(__file__).resolve().parents[1] / "meshfold"
RELEASE: Final = "demo"
#: The least that says where the broker is and where the secrets are.
BASE: Final[dict[str, Any]] = {
    "mesh": {"root": {"existingSecret": "mesh-root"}},
    "broker": {"url": "nats://broker:4222", "auth": {"existingSecret": "broker-login"}},
}
Objects = dict[tuple[str, str], dict[str, Any]]


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `values`, maps key by key, as Helm does."""
    result = copy.deepcopy(values)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


class ChartCopy:
    """A copy of the chart in `folder`. Helm refuses a chart whose dependency is not there, even when it is off."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "meshfold"
        shutil.copytree(CHART, self.path)
        nats = self.path / "charts" / "nats"
        (nats / "templates").mkdir(parents=True)
        (nats / "Chart.yaml").write_text("apiVersion: v2\nname: nats\nversion: 2.14.99\n")
        (nats / "values.yaml").write_text("{}\n")
        (nats / "templates" / "stub.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-nats'}\n"
            "data: {values: {{ toJson .Values | quote }}}\n"
        )

    def lint(self, values: dict[str, Any]) -> list[str]:
        """What `helm lint --strict` has to say, but for hints."""
        found = helm_python.lint(str(self.path), values, strict=True)
        return [*found["errors"], *(m["error"] for m in found["messages"] if m["severity"] > 1)]

    def files(self, values: dict[str, Any]) -> dict[str, str]:
        """Rendered text by template. Raises what Helm raises: values are checked against the schema first."""
        with helm_python.Chart.load(str(self.path)) as chart:
            chart.validate_schema(values)
            return chart.render(values, name=RELEASE, namespace="plant")

    def render(self, values: dict[str, Any] | None = None) -> Objects:
        """Objects by kind and name, `BASE` under the values."""
        found: Objects = {}
        for name, text in self.files(merged(BASE, values or {})).items():
            if name.endswith("NOTES.txt"):
                continue
            for document in yaml.load_all(text, yaml.CSafeLoader):
                if document:
                    key = (document["kind"], document["metadata"]["name"])
                    assert key not in found, f"{key} twice"
                    found[key] = document
        return found

    def notes(self, values: dict[str, Any] | None = None) -> str:
        """NOTES.txt."""
        return self.files(merged(BASE, values or {}))["meshfold/templates/NOTES.txt"]


def pods(objects: Objects) -> Objects:
    """Every pod's spec, by the object that makes it."""
    found = {
        key: one["spec"]["template"]["spec"]
        for key, one in objects.items()
        if "template" in one.get("spec", {})
    }
    return found | {key: one["spec"] for key, one in objects.items() if key[0] == "Pod"}
