"""Many threads, a slow observer, a raising one and an operator that comes and goes: a small form of the long run."""

from __future__ import annotations

import json

import pytest
import stress
from meshfold.core import Graph
from meshfold.core.flow import EdgeCounters


def test_four_threads_lose_nothing_while_observers_are_slow_raise_and_operators_go() -> None:
    told: list[str] = []
    outcome = stress.Stress(60_000, told.append).run()
    assert outcome.wrong == []
    assert outcome.raised == 60
    assert outcome.slow_delivered + outcome.slow_dropped + outcome.slow_pending == 60_000
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


def judged(publish: int, slow: EdgeCounters, grown_bytes: int = 0) -> list[str]:
    """What is wrong with a run of 2000 events of which so many were published."""
    graph = Graph()
    graph.observe(stress.SOURCE, stress.raises)
    graph.publish_many(stress.SOURCE, range(publish))
    outcome = stress.Outcome(2000, rss_warm_bytes=2**20, rss_max_bytes=2**20 + grown_bytes)
    stress.judge(graph, outcome, slow)
    assert outcome.raised == publish // stress.RAISES_EACH
    return outcome.wrong


def test_a_loss_is_wrong_unless_the_queue_of_the_slow_observer_explains_it() -> None:
    assert judged(2000, EdgeCounters(2000, 1500, {"overflow_oldest": 490}, 10, 0)) == []
    (other,) = judged(2000, EdgeCounters(2000, 1999, {"closed": 1}, 0, 0))
    assert "other reasons" in other
    (less,) = judged(2000, EdgeCounters(1990, 1990, {}, 0, 0))
    assert "offered 1990 of 2000" in less


def test_a_failure_that_was_not_counted_a_missing_number_and_growing_memory_are_told() -> None:
    whole = EdgeCounters(2000, 2000, {}, 0, 0)
    assert judged(999, whole) == ["999 of 2000 events were numbered", "0 failures counted, 2 made"]
    (memory,) = judged(2000, whole, stress.GROWTH_BYTES_MAX + 1)
    assert "memory grew by 16.0 MiB" in memory


def test_the_document_says_what_was_wrong_and_the_exit_code_that_something_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stress.py", "--events", "4000"])
    assert stress.main() == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["events"], document["raised"], document["wrong"]) == (4000, 4, [])
    monkeypatch.setattr(stress, "RAISES_EACH", 999_999_999)
    monkeypatch.setattr(stress, "raises", lambda event: 1 / 0)
    assert stress.main() == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == ["4000 failures counted, 0 made"]


@pytest.mark.parametrize("argument", ["0", "-5"])
def test_a_run_of_no_events_is_refused(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stress.py", "--events", argument])
    with pytest.raises(SystemExit) as caught:
        stress.main()
    assert caught.value.code == 2
    assert "at least 1" in capsys.readouterr().err
