"""Many threads, a slow observer, a raising one and an operator that comes and goes: a small form of the long run."""

from __future__ import annotations

import pytest
import stress
from meshfold.core import Graph


def test_four_threads_lose_nothing_while_observers_are_slow_raise_and_operators_go() -> None:
    told: list[str] = []
    outcome = stress.Stress(60_000, told.append).run()
    assert outcome.wrong == []
    assert outcome.raised == 60
    assert outcome.slow_delivered + outcome.slow_dropped <= 60_000
    assert told
    assert outcome.rss_max_bytes >= outcome.rss_warm_bytes > 0


def test_what_is_missing_or_out_of_order_is_told() -> None:
    order = stress.Ordered("reader", whole=True)
    graph = Graph()
    events = [graph.publish(stress.SOURCE, number) for number in range(3)]
    for event in (events[0], events[2]):
        order(event)
    wrong: list[str] = []
    order.complain(3, wrong)
    assert wrong == ["reader: 1 events out of order or missing", "reader: 2 of 3 events"]


@pytest.mark.parametrize("argument", ["0", "-5"])
def test_a_run_of_no_events_is_refused(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stress.py", "--events", argument])
    with pytest.raises(SystemExit) as caught:
        stress.main()
    assert caught.value.code == 2
    assert "at least 1" in capsys.readouterr().err
