"""The judges of CI refuse what they should: a run's document, requirement lists, test reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import check_up
import ci_summary
import lock
import pytest

GOOD: dict[str, Any] = {
    "routes": [
        {"route": f"edge/host/{n}", "reader": "hub", "delivered": 9, "unexplained": 0} for n in range(12)
    ],
    "unexplained": 0,
    "refused": [
        {"node": "outsider", "route": "edge/host/1", "action": "META_READ", "error": "needs a grant"}
    ],
    "leader": {"group": "control", "node": "hub", "term": 1, "token": [1, 1]},
    "broker": {"version": "2", "frames_seen": 1000, "plaintext_found": 0, "control_found": 1},
    "why": {
        "event": "a",
        "causes": [{"event": "b", "node": "hub", "causes": [{"event": "c", "node": "edge"}]}],
    },
    "trace": {
        "trace_id": "t",
        "spans": [
            {"service": "hub", "span_id": "1", "parent": None},
            {"service": "edge", "span_id": "2", "parent": "1"},
        ],
    },
}
BAD: dict[str, dict[str, Any]] = {
    "few routes": {"routes": GOOD["routes"][:11]},
    "a route that lost without a reason": {
        "routes": [*GOOD["routes"][:11], {**GOOD["routes"][11], "unexplained": 1}]
    },
    "a route that another node read": {
        "routes": [*GOOD["routes"][:11], {**GOOD["routes"][11], "reader": "edge"}]
    },
    "unexplained": {"unexplained": 1},
    "no refusal": {"refused": []},
    "a refusal for another cause": {
        "refused": [{"node": "o", "route": "r", "action": "OWN", "error": "timeout"}]
    },
    "few frames": {"broker": {**GOOD["broker"], "frames_seen": 999}},
    "plaintext": {"broker": {**GOOD["broker"], "plaintext_found": 1}},
    "no control canary": {"broker": {**GOOD["broker"], "control_found": 0}},
    "no leader": {"leader": None},
    "no causes": {"why": {"event": "a", "causes": []}},
    "no trace": {"trace": {"trace_id": None, "spans": []}},
    "a trace of one node": {"trace": {"trace_id": "t", "spans": GOOD["trace"]["spans"][:1]}},
    "a trace without its root": {"trace": {"trace_id": "t", "spans": GOOD["trace"]["spans"][1:]}},
    "a span whose parent is lost": {
        "trace": {
            "trace_id": "t",
            "spans": [*GOOD["trace"]["spans"], {"service": "edge", "span_id": "3", "parent": "9"}],
        }
    },
    "causes elsewhere": {"why": {"event": "a", "causes": [{"event": "b", "node": "hub"}]}},
}


def test_good_run_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    path.write_text(json.dumps(GOOD))
    assert check_up.main([str(path)]) == 0


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_bad_run_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    path.write_text(json.dumps({**copy.deepcopy(GOOD), **change}))
    assert check_up.main([str(path)]) == 1


@pytest.mark.parametrize("content", ["", "building...\n{}", "{"])
def test_anything_but_one_document_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    path.write_text(content)
    assert check_up.main([str(path)]) == 2


def test_requirement_lists_cover_what_is_declared() -> None:
    assert not lock.problems()


def test_missing_hash_and_host_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in lock.HEADS:
        (tmp_path / name).write_text("-i somewhere\nrich==15\n")
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    found = "\n".join(lock.problems())
    assert "run.txt misses typer" in found
    assert "run.txt: rich has no hash" in found
    assert "run.txt names a host" in found


def test_summary_adds_up_both_languages(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="b"/><testcase classname="a" name="c"><failure/></testcase>'
        '<testcase classname="a" name="d"><skipped message="why"/></testcase></testsuite></testsuites>'
    )
    (tmp_path / "rust.log").write_text("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n")
    assert ci_summary.count(tmp_path) == (4, 1, ["a::d: why", "rust: an ignored Rust test"])
