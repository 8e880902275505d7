"""What a spilling mailbox gives after a crash, and readers that reject."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import Event, Graph, QueueFull, Schema, route
from meshfold.core.mailbox import MailboxDescriptor

INT: Schema[int] = Schema.int()
A = route("dock", "crane", "a", schema=INT)


def test_m36_s13_what_a_crash_left_on_disk_is_marked_because_it_may_have_been_delivered(
    tmp_path: Path,
) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from meshfold.core import Graph, Schema
        from meshfold.core.mailbox import MailboxDescriptor
        graph = Graph()
        descriptor = MailboxDescriptor(capacity=2, overflow_policy="spill_to_store", spill=sys.argv[1])
        box = graph.mailbox("orders", descriptor, schema=Schema.int())
        graph.publish_many(box.ingress, list(range(8)))
        consumer = box.consumer()
        for _ in range(5):
            delivery = consumer.receive()
            print(delivery.value, flush=True)
            delivery.ack()
        os._exit(9)
        """
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (9, ["0", "1", "2", "3", "4"])
    graph = Graph()
    descriptor = MailboxDescriptor(capacity=2, overflow_policy="spill_to_store", spill=tmp_path)
    orders = graph.mailbox("orders", descriptor, schema=INT)
    orders.publish(100)
    again = {}
    for delivery in orders.consumer():
        again[delivery.value] = delivery.event.taints
        delivery.ack()
    # Nothing that was on disk and not delivered is missing, and what comes again says so.
    assert set(again) >= {7, 100}
    assert [value for value, taints in again.items() if "DELIVERY_DUPLICATED" not in taints] == [100]


@pytest.mark.parametrize("reader", ["stream", "observer"])
def test_s14_a_reader_that_rejects_tells_the_producer_and_takes_no_number(reader: str) -> None:
    graph = Graph()
    gate, inside = threading.Event(), threading.Event()
    if reader == "stream":
        held: Any = graph.stream(A, capacity=2, overflow="reject")
    else:

        def slow(event: Event[int]) -> None:
            inside.set()
            assert gate.wait(60)

        held = graph.observe(A, slow, capacity=2, overflow="reject")
        graph.publish(A, 0)
        assert inside.wait(60)
    before = graph.published(A)
    graph.publish(A, 1)
    graph.publish(A, 2)
    with pytest.raises(QueueFull, match="no room"):
        graph.publish(A, 3)
    assert graph.published(A) == before + 2
    (credit,) = graph.credit_snapshot()
    assert (credit.available, credit.rejected, credit.gate) == (0, 1, True)
    counters = held.counters
    assert (counters.dropped, counters.unexplained) == ({}, 0)
    gate.set()
    held.close()
    graph.publish(A, 4)
