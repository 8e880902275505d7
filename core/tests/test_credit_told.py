"""Credit as it is told: windows of edges and of operators now, and loops in which everybody waits for everybody (S6, S7)."""

from __future__ import annotations

import pytest
from meshfold.core import Graph, Schema, route, sum_
from meshfold.core.mailbox import MailboxDescriptor
from meshfold.core.policy import FlowPolicy
from meshfold.core.query import CreditRow, EdgeCreditRow

A = route("loop", "test", "a", schema=Schema.int())
B = route("loop", "test", "b", schema=Schema.int())
OTHER = route("loop", "test", "other", schema=Schema.int())
MARKS = route("loop", "test", "marks", schema=Schema.int())
SUMS = route("loop", "test", "sums", schema=Schema.float())


def test_m34_the_query_tells_the_credit_of_the_moment() -> None:
    graph = Graph()
    stream = graph.stream(A, capacity=4, overflow="block")
    graph.stream(OTHER, capacity=2)
    graph.publish_many(A, [1, 2, 3])

    def told() -> list[object]:
        return list(graph.query("credit_stats", route=A.text).rows)

    room, edge = told()
    assert room == CreditRow(A.text, 1)
    assert isinstance(edge, EdgeCreditRow)
    assert (edge.authority, edge.unit, edge.capacity, edge.available, edge.gate) == (
        "consumer",
        "events",
        4,
        1,
        True,
    )
    assert (edge.granted, edge.spent) == (4, 3)
    next(stream.blocking(timeout=0))
    room, edge = told()
    assert isinstance(edge, EdgeCreditRow)
    assert (room, edge.available, edge.granted) == (CreditRow(A.text, 2), 2, 5)
    everything = graph.query("credit_stats").rows
    assert {row.route for row in everything} == {A.text, OTHER.text}  # type: ignore[union-attr]


def test_s6_the_slots_of_a_window_are_credit_that_the_watermark_gives_back() -> None:
    graph = Graph()
    graph.window(
        A, width=10, watermark=MARKS, items_max=4, aggregate=sum_(), event_time=lambda item: item
    ).into(SUMS)

    def slots() -> tuple[str, int, int, int]:
        (info,) = [info for info in graph.credit_snapshot() if info.unit == "slots"]
        return info.authority, info.capacity, info.available, info.rejected

    assert slots() == ("window", 4, 4, 0)
    graph.publish_many(A, [1, 2, 3])
    assert slots() == ("window", 4, 1, 0)
    graph.publish_many(A, [4, 5])
    assert slots() == ("window", 4, 0, 1)
    graph.publish(MARKS, 20)
    assert slots() == ("window", 4, 4, 1)
    assert graph.history(SUMS)[0].value == 1 + 2 + 3 + 4
    (row,) = [row for row in graph.query("credit_stats", route=A.text).rows if isinstance(row, EdgeCreditRow)]
    assert (row.unit, row.available) == ("slots", 4)


def looped(first: str, second: str) -> Graph:
    """Two mailboxes in a circle: a -> one -> b -> two -> a."""
    graph = Graph()
    for name, overflow, source, sink in (("one", first, A, B), ("two", second, B, A)):
        descriptor = MailboxDescriptor(capacity=2, overflow_policy=overflow)  # type: ignore[arg-type]
        box = graph.mailbox(name, descriptor, schema=Schema.int())
        graph.connect(source, box)
        box.connect(sink)
    return graph


def test_s7_a_loop_in_which_every_queue_holds_its_producers_up_is_told() -> None:
    (problem,) = looped("block", "reject_write").validate_graph()
    assert "holds its producers up" in problem.what
    assert all(text in problem.what for text in (A.text, B.text, "one", "two"))
    rows = looped("block", "block").query("validate").rows
    assert any("nothing moves" in row.detail for row in rows)  # type: ignore[union-attr]


@pytest.mark.parametrize("lossy", ["drop_oldest", "drop_newest", "coalesce_latest"])
def test_s7_one_queue_that_loses_lets_the_others_move(lossy: str) -> None:
    assert looped("block", lossy).validate_graph() == []
    assert looped(lossy, "block").validate_graph() == []


def test_s7_operators_and_queued_connections_are_part_of_the_loop() -> None:
    graph = Graph()
    graph.pipe(A).map(lambda item: item + 1).into(B)
    graph.connect(B, A, flow=FlowPolicy(async_boundary="queued", overflow="block"))
    assert len(graph.validate_graph()) == 1
    other = Graph()
    other.pipe(A).map(lambda item: item + 1).into(B)
    edge = other.connect(B, A, flow=FlowPolicy(async_boundary="queued", overflow="drop_newest"))
    assert other.validate_graph() == []
    edge.close()
    assert other.flows() == []
