"""Write docs/hostile.md from docs/hostile.toml and the tests that carry a row's number, or check it.

python tools/hostile_rows.py                        write
python tools/hostile_rows.py --check                exit 1 where the table is stale or a row has no test
python tools/hostile_rows.py --results XML [XML...] exit 1 where no test of a row passed in these runs

A row is held by tests named after it (`test_hw09_...`, `test_hg18_and_hg19_...`, `test_hw31_to_hw33_...`) that are not
skipped or expected to fail; nothing else can claim it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity import ROOT, Test, doubtful, passed, test_functions

SOURCE, TARGET = ROOT / "docs/hostile.toml", ROOT / "docs/hostile.md"
#: Behind the rows of promises that it may carry as well (`test_m120_hf3_...`).
NAME = re.compile(r"test(?:_m\d+)*((?:_(?:and_|to_)?h[wgksf]\d+)+)_")
PART = re.compile(r"_(and_|to_)?(h[wgksf])(\d+)")
HEAD = """# Hostile input, row by row

What a peer, a member, the broker or a disk may give, what has to follow, and the tests that give it. Written by `tools/hostile_rows.py` from `docs/hostile.toml` and the names of the tests; a row
without a test that always has to pass fails the repository's tests, and CI compares the table with the results of the same run. A word in code is the reason a frame is refused for,
which is counted; rows about bytes are tried in at least a hundred variants, and what a refused one may not change is compared before and after.

"""


@dataclass
class Row:
    """A row with the tests that hold it."""

    name: str
    input: str
    expect: str
    tests: list[Test] = field(default_factory=list[Test])


def rows_of(name: str) -> list[str]:
    """The rows a test's name carries."""
    found = NAME.match(name)
    rows: list[str] = []
    for how, kind, digits in PART.findall(found[1]) if found else ():
        number = int(digits)
        first = int(rows[-1][2:]) + 1 if how == "to_" else number
        rows += [f"{kind.upper()}{one}" for one in range(first, number + 1)]
    return rows


def tests(root: Path = ROOT) -> Iterator[Test]:
    """Every test of the repository that carries a row and always has to pass."""
    for path, node in test_functions(root):
        if rows_of(node.name) and not doubtful(node):
            yield Test(node.name, path.relative_to(root).as_posix())


def table(source: dict[str, Any], found: list[Test]) -> dict[str, Row]:
    """Rows by name, with their tests.

    Exits with a message where a test carries a row that is not there.
    """
    rows = {name: Row(name, **entry) for name, entry in source["rows"].items()}
    for test in found:
        for name in rows_of(test.name):
            if name not in rows:
                raise SystemExit(f"hostile: {test.file}: {test.name} carries {name}, which is no row")
            rows[name].tests.append(test)
    return rows


def text(source: dict[str, Any], rows: dict[str, Row]) -> str:
    """The document."""
    held = sum(bool(row.tests) for row in rows.values())
    out = [HEAD, f"{len(rows)} rows, {held} with tests.\n"]
    for row in rows.values():
        if row.name in source["sections"]:
            out.append(f"\n## {source['sections'][row.name]}\n\n")
            out.append("| row | given | what follows | tests |\n|---|---|---|---|\n")
        names = sorted({(test.file.rpartition("/")[2], test.name) for test in row.tests})
        shown = "<br>".join(f"`{name}` ({file})" for file, name in names) or "none"
        out.append(f"| {row.name} | {row.input} | {row.expect} | {shown} |\n")
    return "".join(out)


def unproven(rows: dict[str, Row], good: set[str]) -> list[str]:
    """Rows none of whose tests passed."""
    return [
        f"none of the tests of {row.name} passed"
        for row in rows.values()
        if not any(test.name in good for test in row.tests)
    ]


def main(arguments: list[str]) -> int:
    """Write or check."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    rows = table(source, list(tests()))
    if arguments[:1] == ["--results"]:
        problems = unproven(rows, passed([Path(path) for path in arguments[1:]]))
    elif arguments == ["--check"]:
        problems = [f"{row.name} has no test" for row in rows.values() if not row.tests]
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text(source, rows):
            problems.append("docs/hostile.md is stale, run tools/hostile_rows.py")
    else:
        TARGET.write_text(text(source, rows), encoding="utf-8")
        return 0
    sys.stderr.writelines(f"hostile: {problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
