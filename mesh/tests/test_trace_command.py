"""What `meshfold trace` asks for, and how it draws a trace."""

from __future__ import annotations

from typing import Any

import pytest
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import WiringError
from meshfold.mesh.cli.trace import question, tree

RAW = route("edge", "thermal", "raw", schema=Schema.float())


def span(
    service: str, name: str, span_id: str, parent: str | None, start_ms: float, **more: Any
) -> dict[str, Any]:
    start = int(start_ms * 1e6)
    times = {"start_ns": start, "end_ns": start + 500_000}
    return (
        {"service": service, "name": name, "span_id": span_id, "parent": parent, "links": [], "error": None}
        | times
        | more
    )


def test_events_traces_and_routes_are_told_apart() -> None:
    event = Graph(name="edge").publish(RAW, 1.0)
    assert question(event.id) == {"event": event.id}
    assert question(event.trace.hex()) == {"trace": event.trace.hex()}
    assert question("edge/thermal/raw") == {"route": "edge/thermal/raw"}
    assert question(RAW.address) == {"route": "edge/thermal/raw"}


@pytest.mark.parametrize("text", ["", "nonsense", "a/b", "a" * 52 + "/"])
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(WiringError):
        question(text)


def test_spans_stand_under_their_parents() -> None:
    spans = [
        span("edge", "publish edge/thermal/raw", "1", None, 10.0),
        span("edge", "send edge/thermal/raw", "2", "1", 11.0, error="mesh.too_large"),
        span("hub", "process edge/thermal/raw", "3", "1", 12.0),
        span("hub", "pipe hub/thermal/mean", "4", "3", 12.1, links=[{}, {}]),
    ]
    assert tree({"trace_id": "abc", "spans": spans}) == [
        "trace abc",
        "    0.000 ms     0.500 ms  edge: publish edge/thermal/raw",
        "    1.000 ms     0.500 ms    edge: send edge/thermal/raw  (mesh.too_large)",
        "    2.000 ms     0.500 ms    hub: process edge/thermal/raw",
        "    2.100 ms     0.500 ms      hub: pipe hub/thermal/mean  (2 linked)",
    ]


def test_a_span_whose_parent_nobody_remembers_is_shown_all_the_same() -> None:
    spans = [span("hub", "process edge/thermal/raw", "3", "gone", 12.0)]
    assert len(tree({"trace_id": "abc", "spans": spans})) == 2
    assert tree({"trace_id": None, "spans": []}) == []
