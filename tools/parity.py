"""Write docs/parity.md from docs/parity.toml and the tests that carry a row's number, or check it.

python tools/parity.py                        write
python tools/parity.py --check                exit 1 where the table is stale
python tools/parity.py --results XML [XML...] exit 1 where a row is claimed and its tests did not pass in these runs

A row works if a test named after it (`test_m36_...`, several rows: `test_m36_m37_...`) is there and is not skipped or
expected to fail. Nothing else can claim it.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "docs/parity.toml", ROOT / "docs/parity.md"
NAME = re.compile(r"test((?:_m\d+)+)_")
RUST = re.compile(r"#\[test\]\s+fn (test(?:_m\d+)+_\w+)", re.MULTILINE)
PLACES = ("core", "security", "consensus", "mesh", "integration", "examples")
#: Marks that say a test may not have held.
DOUBTFUL = ("skip", "skipif", "xfail")
TESTS_SHOWN_MAX = 3
Function = ast.FunctionDef | ast.AsyncFunctionDef
HEAD = """# Parity, row by row

What each promise of the systems that Meshfold follows is called here, and the tests that hold it. Written by `tools/parity.py` from `docs/parity.toml` and the names of
the tests; a row without a test cannot say that it works, and CI compares the table with the results of the same run.

"""


@dataclass
class Test:
    """A test that carries rows: its name, its file, and whether it always has to pass."""

    name: str
    file: str
    sure: bool = True


@dataclass
class Row:
    """A row with its tests."""

    number: int
    title: str
    api: str
    lacks: str = ""
    elsewhere: str = ""
    tests: list[Test] = field(default_factory=list[Test])

    @property
    def state(self) -> str:
        """What the table says."""
        sure = [test for test in self.tests if test.sure]
        if sure:
            return f"partly: {self.lacks}" if self.lacks else "works"
        return f"elsewhere: {self.elsewhere}" if self.elsewhere else "not yet"


def rows_of(name: str) -> list[int]:
    """The rows a test's name carries."""
    found = NAME.match(name)
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


def doubtful(node: Function) -> bool:
    """Whether the test is marked as one that may not run or not pass."""
    marks = {
        part.attr
        for mark in node.decorator_list
        for part in ast.walk(mark)
        if isinstance(part, ast.Attribute)
    }
    return bool(marks & set(DOUBTFUL))


def test_functions(root: Path) -> Iterator[tuple[Path, Function]]:
    """Every test of the repository in Python, with its file."""
    for place in PLACES:
        for path in sorted((root / place).rglob("test_*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, Function) and node.name.startswith("test_"):
                    yield path, node


def tests(root: Path = ROOT) -> Iterator[Test]:
    """Every test of the repository that carries a row."""
    for path, node in test_functions(root):
        if rows_of(node.name):
            yield Test(node.name, path.relative_to(root).as_posix(), not doubtful(node))
    for place in PLACES:
        for path in sorted((root / place).rglob("tests/*.rs")):
            for name in RUST.findall(path.read_text(encoding="utf-8")):
                yield Test(name, path.relative_to(root).as_posix())


def table(source: dict[str, Any], found: list[Test]) -> dict[int, Row]:
    """Rows by number, with their tests.

    Exits with a message where a test carries a row that is not there.
    """
    rows = {int(key[1:]): Row(int(key[1:]), **entry) for key, entry in source["rows"].items()}
    for test in found:
        for number in rows_of(test.name):
            if number not in rows:
                raise SystemExit(f"parity: {test.file}: {test.name} carries M{number}, which is no row")
            rows[number].tests.append(test)
    return rows


def text(source: dict[str, Any], rows: dict[int, Row]) -> str:
    """The document."""
    states = [row.state.partition(":")[0] for row in rows.values()]
    counts = ", ".join(f"{states.count(kind)} {kind}" for kind in ("works", "partly", "elsewhere", "not yet"))
    out = [HEAD, f"{len(rows)} rows: {counts}.\n"]
    sections = {int(key[1:]): title for key, title in source["sections"].items()}
    for number, row in sorted(rows.items()):
        if number in sections:
            out.append(
                f"\n## {sections[number]}\n\n| row | promise | API | state | tests |\n|---|---|---|---|---|\n"
            )
        sure = [test for test in row.tests if test.sure]
        shown = "<br>".join(f"`{test.name}`" for test in sure[:TESTS_SHOWN_MAX])
        more = f" and {len(sure) - TESTS_SHOWN_MAX} more" if len(sure) > TESTS_SHOWN_MAX else ""
        out.append(f"| M{number} | {row.title} | {row.api} | {row.state} | {shown}{more} |\n")
    return "".join(out)


def passed(paths: list[Path]) -> set[str]:
    """Names of the tests that passed in every one of these results that has them."""
    good: set[str] = set()
    bad: set[str] = set()
    for path in paths:
        for case in ElementTree.parse(path).iter("testcase"):
            name = case.get("name", "").partition("[")[0]
            failed = any(child.tag in ("failure", "error", "skipped") for child in case)
            (bad if failed else good).add(name)
    return good - bad


def unproven(rows: dict[int, Row], good: set[str]) -> list[str]:
    """Rows that are claimed without one test that passed."""
    return [
        f"M{row.number} is claimed, and none of its tests passed"
        for row in rows.values()
        if row.state.startswith(("works", "partly"))
        and not any(test.name in good or test.file.endswith(".rs") for test in row.tests)
    ]


def main(arguments: list[str]) -> int:
    """Write or check."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    rows = table(source, list(tests()))
    if arguments[:1] == ["--results"]:
        problems = unproven(rows, passed([Path(path) for path in arguments[1:]]))
        sys.stderr.writelines(f"parity: {problem}\n" for problem in problems)
        return 1 if problems else 0
    wanted = text(source, rows)
    if arguments == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != wanted:
            sys.stderr.write("parity: docs/parity.md is stale, run tools/parity.py\n")
            return 1
        return 0
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
