"""Write what is known twice about the chart from where it is known once, or check that it is written.

python tools/chart_values.py          write docs/reference/chart-values.md and the part `config` of values.schema.json
python tools/chart_values.py --check  exit 1 where one of them differs, or a value has no description

The table comes from the `# --` comments of helm/meshfold/values.yaml; `config` is the part of meshfold.toml's table `[node]`
that the chart does not set itself, whose schema the settings' own types give.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from meshfold.mesh.config import json_schema

ROOT = Path(__file__).resolve().parent.parent
VALUES = Path("helm/meshfold/values.yaml")
SCHEMA = Path("helm/meshfold/values.schema.json")
TABLE = Path("docs/reference/chart-values.md")
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_][\w.-]*):(?:\s|$)")
#: Settings that the chart makes from other values, by variables that win over the file: not for `config`.
SET_BY_CHART = frozenset(
    ("name", "dir", "app", "read", "health_listen", "join_token_file", "nats", "creds", "nkey", "user")
    + ("password_file", "token_file", "ca", "cert", "key")
)
HEAD = """# Values of the chart

Written by tools/chart_values.py from the comments in helm/meshfold/values.yaml. What is not in this table is refused.

| value | default | what it is |
|---|---|---|
"""


@dataclass(frozen=True)
class Value:
    """A described value: its path, its default, and what it is."""

    path: str
    default: Any
    text: str


def described(source: str) -> list[Value]:
    """Every value with a description, in the order of the file."""
    defaults = yaml.safe_load(source)
    found: list[Value] = []
    path: list[tuple[int, str]] = []
    text: list[str] = []
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            text = [stripped.removeprefix("# --").strip()]
            continue
        if stripped.startswith("#"):
            if text:
                text.append(stripped.removeprefix("#").strip())
            continue
        match = KEY.match(line)
        if match is None:
            text = []
            continue
        indent = len(match["indent"])
        path = [*((i, key) for i, key in path if i < indent), (indent, match["key"])]
        if text:
            keys = [key for _, key in path]
            found.append(Value(".".join(keys), _at(defaults, keys), " ".join(text)))
        text = []
    return found


def _at(defaults: Any, keys: list[str]) -> Any:
    for key in keys:
        defaults = defaults[key]
    return defaults


def undescribed(source: str) -> list[str]:
    """Paths of values that neither they nor anything above them describes."""
    known = {value.path for value in described(source)}

    def walk(node: Any, path: str) -> list[str]:
        if path in known:
            return []
        if isinstance(node, dict) and node:
            return [
                one for key, child in node.items() for one in walk(child, f"{path}.{key}" if path else key)
            ]
        return [path]

    return walk(yaml.safe_load(source), "")


def table(source: str) -> str:
    """The page of the manual."""
    rows = []
    for value in described(source):
        default = json.dumps(value.default).replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {value.text.replace('|', chr(92) + '|')} |\n")
    return HEAD + "".join(rows)


def schema(source: str) -> str:
    """values.schema.json with the settings of nodes as they are now."""
    document = json.loads(source)
    node = dict(json_schema()["$defs"]["NodeSettings"])
    properties = {key: one for key, one in node["properties"].items() if key not in SET_BY_CHART}
    document["$defs"]["config"] = {"type": "object", "properties": properties, "additionalProperties": False}
    return json.dumps(document, indent=2) + "\n"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write, or only check."""
    values = (root / VALUES).read_text(encoding="utf-8")
    wanted = {TABLE: table(values), SCHEMA: schema((root / SCHEMA).read_text(encoding="utf-8"))}
    problems = [f"{VALUES}: {path} has no description" for path in undescribed(values)]
    for path, text in wanted.items():
        if arguments != ["--check"]:
            (root / path).write_text(text, encoding="utf-8")
        elif not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text:
            problems.append(f"{path} is not what the chart says: run tools/chart_values.py")
    for problem in problems:
        sys.stderr.write(f"chart: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
