"""Rows of `meshfold top`."""

from __future__ import annotations

from typing import Any

from meshfold.mesh.cli.top import rows_of


def flow(**changes: Any) -> dict[str, Any]:
    row = {
        "route": "edge/host/cpu",
        "reader": "hub",
        "published": 10,
        "offered": 10,
        "delivered": 7,
        "dropped": {"link_loss": 1},
        "pending": 2,
        "unexplained": 0,
        "unknown_tail": 0,
        "rate_hz": 4.0,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
    }
    return row | changes


def bridge(route: str, events: int, pending: int = 0) -> dict[str, Any]:
    return {"route": route, "dir": "out", "events": events, "pending": pending}


def test_incarnations_of_a_producer_are_one_row() -> None:
    (row,) = rows_of([flow(), flow(dropped={"link_loss": 2, "late": 1}, pending=3)], {}, {}, 1.0)
    assert (row["published"], row["delivered"], row["rate_hz"]) == (20, 14, 8.0)
    assert row["dropped"] == {"link_loss": 3, "late": 1}
    assert row["lag"] == row["pending"] == 5
    assert row["credit"] is None


def test_readers_of_a_route_are_rows_of_their_own() -> None:
    rows = rows_of([flow(), flow(reader="node-3", credit=5), flow(reader="node-3", credit=2)], {}, {}, 1.0)
    assert [(row["reader"], row["credit"]) for row in rows] == [("hub", None), ("node-3", 7)]


def test_a_shared_route_that_nobody_reads_is_shown_with_its_rate() -> None:
    before = {"edge": {"bridges": [bridge("edge/host/top", 10), bridge("edge/host/cpu", 10)]}}
    after = {"edge": {"bridges": [bridge("edge/host/top", 16, pending=1), bridge("edge/host/cpu", 99)]}}
    rows = rows_of([flow()], before, after, 2.0)
    assert [(row["route"], row["reader"]) for row in rows] == [
        ("edge/host/cpu", "hub"),
        ("edge/host/top", None),
    ]
    assert (rows[1]["rate_hz"], rows[1]["published"], rows[1]["lag"]) == (3.0, 17, 1)


def test_the_first_look_and_a_restarted_node_have_no_rate() -> None:
    after = {"edge": {"bridges": [bridge("edge/host/top", 16)]}}
    assert rows_of([], {}, after, 1.0)[0]["rate_hz"] == 0.0
    before = {"edge": {"bridges": [bridge("edge/host/top", 500)]}}
    assert rows_of([], before, after, 1.0)[0]["rate_hz"] == 0.0
