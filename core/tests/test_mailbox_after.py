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


@pytest.mark.parametrize("ends", ["closed", "killed"])
@pytest.mark.parametrize("acknowledged", [0, 3, 500, 999, 1000])
def test_m36_what_was_acknowledged_before_a_restart_does_not_come_again(
    tmp_path: Path, acknowledged: int, ends: str
) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from meshfold.core import Graph, Schema
        from meshfold.core.mailbox import MailboxDescriptor
        graph = Graph()
        descriptor = MailboxDescriptor(capacity=4, overflow_policy="spill_to_store", spill=sys.argv[1])
        box = graph.mailbox("orders", descriptor, schema=Schema.int())
        graph.publish_many(box.ingress, list(range(1000)))
        consumer = box.consumer()
        for _ in range(int(sys.argv[2])):
            consumer.receive().ack()
        if sys.argv[3] == "closed":
            box.close()
        os._exit(9)
        """
    )
    for _ in range(2):
        run = [sys.executable, "-c", code, str(tmp_path), str(acknowledged), ends]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 9, done.stderr
        descriptor = MailboxDescriptor(capacity=4, overflow_policy="spill_to_store", spill=tmp_path)
        with Graph().mailbox("orders", descriptor, schema=INT) as orders:
            again = []
            for delivery in orders.consumer():
                again.append(delivery.value)
                delivery.ack()
        # The first four were never on disk.
        assert again == list(range(max(4, acknowledged), 1000))


def test_m36_what_was_brought_back_and_not_acknowledged_stays_on_disk(tmp_path: Path) -> None:
    blob = Schema.bytes()
    descriptor = MailboxDescriptor(capacity=4, overflow_policy="spill_to_store", spill=tmp_path)
    with Graph().mailbox("blobs", descriptor, schema=blob) as blobs:
        for number in range(12):
            # Larger than a file of the spill: each stands in its own.
            blobs.publish(bytes([number]) * (1 << 20))
        consumer = blobs.consumer()
        held = [consumer.receive() for _ in range(4)]
        for first in held:
            assert first is not None
            first.ack()
        held = [consumer.receive() for _ in range(3)]
        assert [delivery.value[0] for delivery in held if delivery] == [4, 5, 6]
        assert held[1] is not None
        held[1].ack()
    with Graph().mailbox("blobs", descriptor, schema=blob) as blobs:
        again = [delivery.value[0] for delivery in blobs.consumer()]
    assert again[:4] == [4, 5, 6, 7]


@pytest.mark.parametrize("change", ["gone", "torn", "of another log"])
def test_m36_a_place_that_cannot_be_trusted_costs_duplicates_and_nothing_else(
    tmp_path: Path, change: str
) -> None:
    descriptor = MailboxDescriptor(capacity=1, overflow_policy="spill_to_store", spill=tmp_path)
    with Graph().mailbox("orders", descriptor, schema=INT) as orders:
        for value in range(6):
            orders.publish(value)
        consumer = orders.consumer()
        for _ in range(4):
            delivery = consumer.receive()
            assert delivery is not None
            delivery.ack()
    place = tmp_path / "place"
    if change == "gone":
        place.unlink()
    elif change == "torn":
        place.write_bytes(place.read_bytes()[:-1])
    else:
        for path in [*tmp_path.glob("*.log"), tmp_path / "token"]:
            path.unlink()
        # A log that begins anew beside the place of another.
        with Graph().mailbox("orders", descriptor, schema=INT) as orders:
            for value in range(6):
                orders.publish(value)
    with Graph().mailbox("orders", descriptor, schema=INT) as orders:
        again = []
        for delivery in orders.consumer():
            again.append(delivery.value)
            delivery.ack()
    assert again == [1, 2, 3, 4, 5]


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
