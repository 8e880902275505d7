"""The table of hostile rows: every row has a test that always has to pass, and the page says so."""

from __future__ import annotations

import tomllib
from pathlib import Path

import hostile_rows
import parity
import pytest
from parity import passed


def test_a_name_carries_one_row_several_or_a_range() -> None:
    assert hostile_rows.rows_of("test_hw09_an_empty_frame") == ["HW9"]
    assert hostile_rows.rows_of("test_hg18_and_hg19_apart") == ["HG18", "HG19"]
    assert hostile_rows.rows_of("test_hw31_to_hw33_bounded") == ["HW31", "HW32", "HW33"]
    assert hostile_rows.rows_of("test_m120_hf3_found") == ["HF3"]
    assert hostile_rows.rows_of("test_hwx_none") == hostile_rows.rows_of("test_m36_one") == []


def test_a_test_of_an_unknown_row_is_an_error() -> None:
    source = {"rows": {"HW1": {"input": "a", "expect": "b"}}, "sections": {}}
    with pytest.raises(SystemExit, match="HW2"):
        hostile_rows.table(source, [parity.Test("test_hw02_what", "mesh/tests/test_a.py")])


def test_a_row_needs_a_test_that_passed(tmp_path: Path) -> None:
    source = {"rows": {name: {"input": "a", "expect": "b"} for name in ("HW1", "HW2")}, "sections": {}}
    rows = hostile_rows.table(source, [parity.Test("test_hw01_to_hw02_what", "mesh/tests/test_a.py")])
    results = tmp_path / "results.xml"
    results.write_text('<testsuite><testcase name="test_hw01_to_hw02_what"><failure/></testcase></testsuite>')
    assert len(hostile_rows.unproven(rows, passed([results]))) == 2
    results.write_text('<testsuite><testcase name="test_hw01_to_hw02_what"/></testsuite>')
    assert hostile_rows.unproven(rows, passed([results])) == []


def test_the_table_has_every_row_once_and_a_test_for_each() -> None:
    names = list(tomllib.loads(hostile_rows.SOURCE.read_text("utf-8"))["rows"])
    counts = (("HW", 40), ("HG", 26), ("HK", 15), ("HS", 10), ("HF", 10))
    expected = [f"{kind}{number}" for kind, last in counts for number in range(1, last + 1)]
    # A copied folder is two lives of one node: that is HK10.
    expected.remove("HF8")
    assert names == expected
    assert hostile_rows.main(["--check"]) == 0, "run tools/hostile_rows.py"
