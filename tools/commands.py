"""Generate docs/reference/commands.md from the help of the commands.

python tools/commands.py          write the page
python tools/commands.py --check  exit 1 if it is stale
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from meshfold.mesh.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/commands.md"
NOTE = "<!-- Generated from the help of the commands by tools/commands.py: change that instead. -->"
INTRODUCTION = """# Commands

One executable, `meshfold`; `python -m meshfold.mesh` is the same. With `--json` a command prints one JSON document on stdout;
messages and logs go to stderr.

| exit code | means |
|---|---|
| 0 | it holds, or was done |
| 1 | what was asked for does not hold now: nobody answers, nobody leads, something is unexplained |
| 2 | the input cannot be used: one line says what, where and what to do |
| 3 | refused for lack of a grant, which the line names |

Durations carry a unit: `500ms`, `15s`, `2m`, `1h`, `1d`. Secrets come from files, variables or stdin, never from the command line.
"""


def commands(group: Any, before: str = "meshfold") -> Iterator[tuple[str, Any]]:
    """Every public command with its words, in the order of the help."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _parameters(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        option = parameter.param_type_name == "option"
        name = ", ".join(parameter.opts) if option else parameter.name.upper()
        default = parameter.default if isinstance(parameter.default, (str, int, float)) else None
        said = _escaped(parameter.help or "")
        if default is not None and not isinstance(default, bool) and default != "":
            said += f"; default `{default}`"
        if parameter.required and option:
            said += "; required"
        rows.append(f"| `{name}` | {said} |")
    return ["", "| | |", "|---|---|", *rows] if rows else []


def _section(words: str, command: Any) -> list[str]:
    text, _, example = (command.help or "").partition("Example:")
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n") if part.strip()]
    lines = ["", f"## {words}", ""]
    for paragraph in paragraphs:
        lines += [paragraph.replace("<", "&lt;"), ""]
    lines += ["```console", f"$ {' '.join(example.split())}", "```"]
    return lines + _parameters(command)


def page() -> str:
    """The whole page."""
    lines = [NOTE, INTRODUCTION.rstrip()]
    for words, command in commands(typer.main.get_command(app)):
        lines += _section(words, command)
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or say whether it is stale."""
    wanted = page()
    if "--check" in arguments:
        if not PAGE.exists() or PAGE.read_text() != wanted:
            sys.stderr.write(f"{PAGE.relative_to(ROOT)} is stale: run tools/commands.py\n")
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
