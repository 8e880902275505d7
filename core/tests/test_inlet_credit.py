"""What comes from elsewhere spends credit like what is published here: it waits in order, is counted, and refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from meshfold.core import Event, Graph, Schema, WouldBlock, route
from meshfold.core.errors import DecodeError
from meshfold.core.inlet import HELD_BATCHES_MAX, Inlet
from meshfold.core.mailbox import MailboxDescriptor

IN = route("far", "pump", "flow", schema=Schema.int())
BYTES = route("far", "pump", "frames", schema=Schema.bytes())


def batches(r: Any, values: list[Any], size: int) -> list[Any]:
    """Batches of a remote graph, of so many events each."""
    source = Graph(name="far")
    tap = source.tap(r)
    source.publish_many(r, values)
    found = []
    while (batch := tap.drain(size)) is not None:
        found.append(batch)
    return found


def push(inlet: Inlet, batch: Any) -> Any:
    return inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)


def test_s6_a_batch_waits_for_the_credit_of_a_reader_that_holds_producers_up() -> None:
    graph = Graph()
    stream = graph.stream(IN, capacity=4, overflow="block")
    inlet = graph.inlet(IN)
    first, second, third = batches(IN, list(range(9)), 3)
    assert inlet.credit == 4
    assert push(inlet, first).held == 0
    receipt = push(inlet, second)
    assert (receipt.delivered, receipt.held, inlet.credit) == (1, 2, 0)
    assert push(inlet, third).held == 3
    assert inlet.held == 5
    seen = [event.value for event in stream.blocking(timeout=0)]
    assert seen == list(range(9))
    assert (inlet.held, inlet.credit) == (0, 4)
    counters = stream.counters
    assert (counters.offered, counters.delivered, counters.dropped, counters.unexplained) == (9, 9, {}, 0)
    ((_, _, told, last),) = inlet.counters()
    assert (told.delivered, last) == (9, 9)


def test_s6_without_credit_the_inlet_refuses_by_name_and_keeps_nothing_of_it() -> None:
    graph = Graph()
    stream = graph.stream(IN, capacity=1, overflow="reject")
    inlet = graph.inlet(IN)
    many = batches(IN, list(range(HELD_BATCHES_MAX + 3)), 1)
    for batch in many[: HELD_BATCHES_MAX + 1]:
        push(inlet, batch)
    assert inlet.held == HELD_BATCHES_MAX
    with pytest.raises(WouldBlock, match="wait for its readers"):
        push(inlet, many[HELD_BATCHES_MAX + 1])
    assert (inlet.refused, inlet.held) == (1, HELD_BATCHES_MAX)
    # A proof of what waits here, or was refused, makes nothing of it lost.
    assert inlet.expect(many[0].producer, many[0].incarnation, len(many)) == 0
    told: list[int] = []
    inlet.on_credit(lambda: told.append(inlet.credit))
    seen = [event.value for event in stream.blocking(timeout=0)]
    assert seen == list(range(HELD_BATCHES_MAX + 1))
    assert told
    push(inlet, many[HELD_BATCHES_MAX + 1])
    assert [event.value for event in stream.blocking(timeout=0)] == [HELD_BATCHES_MAX + 1]
    # What was not pushed again is a gap, and counted as one.
    assert inlet.expect(many[0].producer, many[0].incarnation, len(many)) == 1


def test_s6_bytes_are_counted_and_duplicates_cost_nothing() -> None:
    graph = Graph()
    box = graph.mailbox("frames", MailboxDescriptor(capacity=8, max_bytes=100), schema=Schema.bytes())
    graph.connect(BYTES, box)
    inlet = graph.inlet(BYTES)
    one, two, three = batches(BYTES, [b"x" * 60, b"y" * 60, b"z" * 10], 1)
    assert push(inlet, one).delivered == 1
    assert (push(inlet, one).duplicates, box.snapshot().depth) == (1, 1)
    assert push(inlet, two).held == 1
    assert push(inlet, three).held == 1
    consumer = box.consumer()
    for expected in (b"x" * 60, b"y" * 60, b"z" * 10):
        delivery = consumer.receive()
        assert delivery is not None
        assert delivery.value == expected
        delivery.ack()
    assert inlet.held == 0
    snapshot = box.snapshot()
    assert (snapshot.counters.offered, snapshot.counters.unexplained, snapshot.depth) == (3, 0, 0)


def test_s6_what_is_no_batch_is_refused_even_where_others_wait() -> None:
    graph = Graph()
    graph.stream(IN, capacity=1, overflow="block")
    inlet = graph.inlet(IN)
    (whole,) = batches(IN, [1, 2], 2)
    assert push(inlet, whole).held == 1
    with pytest.raises(DecodeError):
        inlet.push(b"nonsense", b"", producer=whole.producer, incarnation=whole.incarnation)
    assert inlet.held == 1


def test_s6_direct_observers_see_remote_events_in_order_while_a_slow_reader_holds_them() -> None:
    graph = Graph()
    seen: list[int] = []

    def note(event: Event[int]) -> None:
        seen.append(event.value)

    graph.observe(IN, note)
    stream = graph.stream(IN, capacity=2, overflow="block")
    inlet = graph.inlet(IN)
    for batch in batches(IN, list(range(20)), 7):
        push(inlet, batch)
    assert seen == [0, 1]
    taken = [event.value for event in stream.blocking(timeout=0)]
    assert seen == taken == list(range(20))
