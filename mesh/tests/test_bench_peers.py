"""`meshfold bench --peers`: who is compared with what, and who is not there; figures with a limit."""

from __future__ import annotations

import importlib
import math
from typing import Any
from unittest.mock import MagicMock

import pytest
from meshfold.mesh.bench import (
    GROWTH_FIGURES,
    LOCAL_CASES,
    OPERATOR_CASES,
    Case,
    Figure,
    run_figures,
    with_peers,
)

CASES = (*LOCAL_CASES, *OPERATOR_CASES)


def test_every_peer_is_compared_with_a_case_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: MagicMock())
    cases, missing = with_peers(CASES)
    assert missing == []
    compared = {case.name: set(case.peers) for case in cases if case.peers}
    assert compared["publish to one observer"] == {"reactivex", "streamz"}
    every = {peer for peers in compared.values() for peer in peers}
    assert every == {"reactivex", "streamz", "csp", "bytewax", "polars"}
    assert [case.name for case in cases] == [case.name for case in CASES]
    # A name that no case has would be measured by nobody.
    assert sum(len(peers) for peers in compared.values()) == 13


def test_a_peer_that_is_not_there_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(importlib, "import_module", nothing)
    cases, missing = with_peers(CASES)
    assert not any(case.peers for case in cases)
    assert len(missing) == 5
    assert missing[0] == "reactivex is not measured: No module named 'reactivex.operators'"
    assert not any("\n" in line for line in missing)


def test_peers_a_case_has_of_its_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: MagicMock())
    own = Case("publish to one observer", "events/s", 1, float, {"ours": float})
    ((case,), _) = with_peers([own])
    assert set(case.peers) == {"ours", "reactivex", "streamz"}


def test_a_figure_says_what_it_should_not_exceed() -> None:
    given = iter((3.0, 1.0, 2.0))
    (result,) = run_figures([Figure("way", "us", 1.5, lambda quick: next(given))])
    assert (result.value, result.min, result.max, result.runs, result.wanted) == (2.0, 1.0, 3.0, 3, 1.5)
    assert result.document()["ratio"] == {}


@pytest.mark.parametrize("figure", GROWTH_FIGURES, ids=lambda figure: figure.name)
def test_what_grows_can_be_measured(figure: Figure) -> None:
    assert math.isfinite(figure.run(True))
    assert figure.wanted > 0.0
