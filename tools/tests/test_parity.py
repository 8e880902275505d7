"""The parity table cannot claim what no test holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import parity
import pytest

SOURCE = {
    "sections": {"M1": "Names"},
    "rows": {
        "M1": {"title": "One", "api": "`a`"},
        "M2": {"title": "Two", "api": "`b`", "lacks": "half of it"},
        "M3": {"title": "Three", "api": "`c`", "elsewhere": "another room"},
        "M4": {"title": "Four", "api": "`d`"},
    },
}
CODE = """
import pytest
def test_m1_m2_holds(): ...
@pytest.mark.skipif(True, reason="never")
def test_m4_is_skipped(): ...
class TestX:
    async def test_m1_again(self): ...
def test_m1x_is_none(): ...
"""


@pytest.fixture
def rows(tmp_path: Path) -> dict[int, parity.Row]:
    (tmp_path / "core/tests").mkdir(parents=True)
    (tmp_path / "core/tests/test_a.py").write_text(CODE)
    return parity.table(SOURCE, list(parity.tests(tmp_path)))


def test_states_come_from_tests(rows: dict[int, parity.Row]) -> None:
    assert {number: row.state for number, row in rows.items()} == {
        1: "works",
        2: "partly: half of it",
        3: "elsewhere: another room",
        4: "not yet",
    }
    assert [test.name for test in rows[1].tests] == ["test_m1_m2_holds", "test_m1_again"]
    assert "4 rows: 1 works, 1 partly, 1 elsewhere, 1 not yet." in parity.text(SOURCE, rows)


def test_a_test_of_an_unknown_row_is_an_error() -> None:
    with pytest.raises(SystemExit, match="M9"):
        parity.table(SOURCE, [parity.Test("test_m9_what", "core/tests/test_a.py")])


def test_a_claim_needs_a_test_that_passed(rows: dict[int, parity.Row], tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text(
        '<testsuite><testcase name="test_m1_m2_holds[a]"/><testcase name="test_m1_m2_holds[b]"><failure/></testcase>'
        '<testcase name="test_m1_again"/></testsuite>'
    )
    assert parity.unproven(rows, parity.passed([results])) == ["M2 is claimed, and none of its tests passed"]


def test_the_table_of_this_repository_has_every_row_once() -> None:
    source = tomllib.loads(parity.SOURCE.read_text("utf-8"))
    numbers = [int(key[1:]) for key in source["rows"]]
    ranges = ((1, 21), (30, 42), (50, 61), (70, 80), (90, 102), (110, 118), (120, 128))
    assert numbers == [number for first, last in ranges for number in range(first, last + 1)]
    assert len(numbers) == 88


def test_the_table_is_the_one_of_these_tests() -> None:
    assert parity.main(["--check"]) == 0, "run tools/parity.py"
