"""Rates and latencies of incoming routes, and values in a few characters."""

from __future__ import annotations

import pytest
from meshfold.core import Graph, Schema, route
from meshfold.mesh.bridge.pace import FRAMES_MAX, Pace
from meshfold.mesh.node.brief import CHARS_MAX, brief, brief_event

SECOND_NS = 1_000_000_000


def test_the_rate_is_that_of_the_last_five_seconds() -> None:
    pace = Pace(0)
    for tenth in range(1, 101):  # ten seconds at 20 events a second
        pace.note(tenth * SECOND_NS // 10, 2, None)
    assert pace.rate_hz(10 * SECOND_NS) == pytest.approx(20, abs=0.5)
    assert pace.rate_hz(12 * SECOND_NS) == pytest.approx(12, abs=0.5)
    assert pace.rate_hz(60 * SECOND_NS) == 0.0


def test_a_route_that_has_just_begun_is_measured_from_its_begin() -> None:
    pace = Pace(100 * SECOND_NS)
    assert pace.rate_hz(100 * SECOND_NS) == 0.0
    pace.note(101 * SECOND_NS, 30, None)
    assert pace.rate_hz(102 * SECOND_NS) == pytest.approx(15)


def test_more_frames_than_are_kept_are_measured_over_the_time_they_took() -> None:
    pace = Pace(0)
    for frame in range(4 * FRAMES_MAX):  # a frame a millisecond: 512 of them are half a second
        pace.note(frame * SECOND_NS // 1000, 10, None)
    now_ns = 4 * FRAMES_MAX * SECOND_NS // 1000
    assert pace.rate_hz(now_ns) == pytest.approx(FRAMES_MAX * 10, rel=0.01), (
        "over the shortest window, a second"
    )


def test_latencies_are_told_to_the_microsecond_and_never_negative() -> None:
    pace = Pace(0)
    assert pace.latency_ms() == {}
    for number in range(100):
        pace.note(number, 1, 123_456 + number * 1000)
    pace.note(100, 1, -5_000)  # the other clock is ahead
    assert pace.latency_ms() == {"p50": 0.172, "p99": 0.221}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (871.5, "871.5"),
        (25_276_510_208.0, "25,276,510,208"),
        ("all well", "all well"),
        (True, "True"),
        ({"values": {"percent": 12.345}, "mark": "ab"}, "percent 12.35, mark ab"),
        ([("python", 27.71), ("up", 3.0)], "python 27.71 up 3"),
        (None, "None"),
    ],
)
def test_a_value_is_told_in_a_few_characters(value: object, text: str) -> None:
    assert brief(value) == text


def test_a_large_value_is_cut_and_no_event_is_nothing() -> None:
    assert len(brief("x" * 10_000)) == CHARS_MAX
    assert len(brief({f"field-{number}": number for number in range(10_000)})) <= CHARS_MAX
    assert brief_event(None) == ""
    graph = Graph()
    assert brief_event(graph.publish(route("a", "b", "c", schema=Schema.int()), 7)) == "7"
