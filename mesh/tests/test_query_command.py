"""What `meshfold query` takes for the fields of a question, and how it prints an answer."""

from __future__ import annotations

from typing import Any

import pytest
from meshfold.core.errors import WiringError
from meshfold.mesh.cli.query import arguments, rows_text


def test_words_are_fields_of_the_question() -> None:
    found = arguments(["route=edge/host/cpu", "since=12", "until=-3", "prefix=a=b", "empty="])
    assert found == {"route": "edge/host/cpu", "since": 12, "until": -3, "prefix": "a=b", "empty": ""}
    assert arguments([]) == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [(["route"], "no key=value"), (["=x"], "no key=value"), (["a=1", "a=2"], "stands there twice")],
)
def test_words_that_are_no_fields_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(WiringError, match=why):
        arguments(words)


def test_an_answer_is_one_line_a_row_and_says_how_it_goes_on() -> None:
    rows = [
        {"row": "TaintRow", "route": "a/b/c", "taint": "TIME_UNKNOWN", "events": 2},
        {"row": "GapRow", "first": None},
    ]
    one = rows_text({"rows": rows, "next": "0 7", "error": "", "message": ""}, "edge")
    assert one == [
        "edge:",
        "  taint      route=a/b/c taint=TIME_UNKNOWN events=2",
        "  gap        ",
        '  more: --node edge --after "0 7"',
    ]
    everyone = {"answers": {"hub": {"routes": [1]}}, "silent": ["edge: refused"]}
    assert rows_text(everyone, None) == ["hub:", '  {"routes": [1]}', "edge: refused: no answer"]
    refused: dict[str, Any] = {"rows": [], "next": None, "error": "core.wiring", "message": "no route"}
    assert rows_text({"answers": {"hub": refused}, "silent": []}, None) == ["hub:", "  core.wiring: no route"]
