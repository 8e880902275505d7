"""Write the table of examples into README.md and examples/README.md from the examples themselves, or check it.

python tools/examples.py          write
python tools/examples.py --check  exit 1 where a table is stale

The first sentence of an example's docstring (or first comment of its run.sh) says what it shows, "Needs:" what it needs.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples"
BEGIN, END = "<!-- examples: written by tools/examples.py -->", "<!-- examples end -->"
#: The file that says what an example shows, the first of these that is there.
MAIN = ("main.py", "read.py", "run.sh")
#: Document -> the path from it to the examples.
DOCUMENTS = {ROOT / "README.md": "examples/", FOLDER / "README.md": ""}


def head(path: Path) -> str:
    """The docstring of a Python file, or the first comment of a script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = ast.get_docstring(ast.parse(text))
    else:
        lines = [line[2:] for line in text.splitlines()[1:] if line.startswith("# ")]
        found = lines[0] if lines else None
    if not found:
        raise SystemExit(f"examples: {path.relative_to(ROOT)} does not say what it shows")
    return " ".join(found.split())


def row(folder: Path, prefix: str) -> str:
    """One line of the table."""
    main = next(folder / name for name in MAIN if (folder / name).exists())
    shows, found, needs = head(main).partition("Needs:")
    if not found:
        raise SystemExit(f"examples: {main.relative_to(ROOT)} does not say what it needs")
    return f"| [{folder.name}]({prefix}{folder.name}/{main.name}) | {shows.strip().rstrip('.')} | {needs.strip().rstrip('.')} |"


def table(prefix: str) -> str:
    """The whole table between its marks."""
    folders = sorted(path for path in FOLDER.iterdir() if re.match(r"\d\d_", path.name))
    rows = "\n".join(row(folder, prefix) for folder in folders)
    return f"{BEGIN}\n| example | shows | needs |\n|---|---|---|\n{rows}\n{END}"


def renew(text: str, prefix: str) -> str:
    """A document with its table as it should be."""
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise SystemExit("examples: a document has no place for the table")
    return text[:begin] + table(prefix) + text[end + len(END) :]


def main(arguments: list[str]) -> int:
    """Write, or only check."""
    stale = 0
    for path, prefix in DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        wanted = renew(text, prefix)
        if text == wanted:
            continue
        if arguments == ["--check"]:
            sys.stderr.write(f"examples: {path.relative_to(ROOT)} is stale, run tools/examples.py\n")
            stale = 1
        else:
            path.write_text(wanted, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
