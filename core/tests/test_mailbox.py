"""Mailboxes and credit: who gets what, in which order, what a full one does, and what is told about it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Event, Graph, QueueFull, Schema, SchemaMismatch, WiringError, WouldBlock, route
from meshfold.core.clocks import ManualClock
from meshfold.core.errors import LeaseExpired, TooLarge
from meshfold.core.mailbox import Consumer, Mailbox, MailboxDescriptor
from meshfold.core.policy import CREDIT_CLASSES, FlowPolicy, builtin_policy

INT: Schema[int] = Schema.int()
A = route("dock", "crane", "a", schema=INT)
B = route("dock", "crane", "b", schema=INT)
C = route("dock", "crane", "c", schema=INT)
BULK = route("dock", "crane", "scan", schema=Schema.bytes(), layer="bulk")
COMMAND = route("dock", "crane", "move", schema=INT, plane="write", variant="request")


def box(graph: Graph, **options: Any) -> Mailbox[int]:
    return graph.mailbox("orders", MailboxDescriptor(**options), schema=INT)


def drain(consumer: Consumer[int]) -> list[int]:
    found = []
    for delivery in consumer:
        found.append(delivery.value)
        delivery.ack()
    return found


def collect(graph: Graph, r: Any) -> list[Event[Any]]:
    seen: list[Event[Any]] = []
    graph.observe(r, seen.append)
    return seen


@pytest.fixture
def releasing() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


# M35: descriptors


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"capacity": True},
        {"delivery_mode": "anyhow"},
        {"ordering_policy": "nice"},
        {"overflow_policy": "whatever"},
        {"overflow_policy": "spill_to_store"},
        {"spill": "folder"},
        {"lease": 0},
        {"max_attempts": 0},
        {"weights": {"a": 0}},
        {"capacity": 1 << 21},
    ],
)
def test_m35_a_descriptor_that_does_not_hold_together_is_refused(wrong: dict[str, Any]) -> None:
    graph = Graph()
    with pytest.raises(WiringError):
        box(graph, **wrong)
    assert graph.edges() == []


def test_m35_a_consumer_takes_and_acknowledges() -> None:
    graph = Graph()
    orders = box(graph)
    with pytest.raises(WiringError, match="exists"):
        box(graph)
    consumer = orders.consumer()
    assert consumer.receive_nowait() is None
    event = orders.publish(1)
    with consumer.receive(60) or pytest.fail("nothing came") as delivery:
        assert (delivery.value, delivery.attempt, delivery.event.id) == (1, 1, event.id)
        assert orders.snapshot().depth == 1
    snapshot = graph.mailbox_snapshot("orders")
    assert (snapshot.depth, snapshot.counters.delivered, snapshot.counters.pending) == (0, 1, 0)
    assert (snapshot.groups[0].acks, snapshot.credit, snapshot.largest_depth) == (1, 128, 1)
    orders.close()
    orders.close()
    with pytest.raises(WiringError, match="closed"):
        consumer.receive_nowait()
    with pytest.raises(WiringError, match="no mailbox"):
        graph.mailbox_snapshot("other")


async def test_m35_an_async_consumer_waits_without_blocking_the_loop() -> None:
    graph = Graph()
    orders = box(graph)
    consumer = orders.consumer()
    waiting = asyncio.ensure_future(consumer.areceive())
    await asyncio.sleep(0)
    orders.publish(7)
    delivery = await asyncio.wait_for(waiting, 60)
    delivery.ack()
    given_up = asyncio.ensure_future(consumer.areceive())
    await asyncio.sleep(0)
    given_up.cancel()
    orders.publish(8)
    async for found in consumer:
        assert found.value == 8
        found.ack()
        break


# M36: overflow


def test_m36_block_overflow_waits(releasing: list[threading.Thread]) -> None:
    graph = Graph()
    orders = box(graph, capacity=2)
    consumer = orders.consumer()
    orders.publish(1)
    orders.publish(2)
    done = threading.Event()

    def produce() -> None:
        orders.publish(3)
        done.set()

    releasing.append(threading.Thread(target=produce))
    releasing[0].start()
    while orders.snapshot().blocked == 0:
        pass
    assert not done.is_set()
    assert graph.flow_snapshot(orders.ingress).blocked_senders == 1
    assert graph.published(orders.ingress) == 2
    first = consumer.receive_nowait()
    assert first is not None
    # A lease alone frees nothing: the entry is still ours.
    assert orders.snapshot().credit == 0
    first.ack()
    assert done.wait(60)
    assert drain(consumer) == [2, 3]
    snapshot = orders.snapshot()
    assert (snapshot.counters.delivered, snapshot.counters.dropped) == (3, {})
    assert snapshot.blocked_writes >= 1


def test_m36_block_gives_up_after_its_timeout_and_never_waits_inside_an_observer() -> None:
    graph = Graph()
    orders = box(graph, capacity=1, block_timeout=0.01)
    orders.publish(1)
    with pytest.raises(QueueFull):
        orders.publish(2)
    with pytest.raises(WouldBlock):
        graph.try_publish(orders.ingress, 2)
    graph.observe(A, lambda event: orders.publish(event.value))
    graph.publish(A, 2)
    count, rows = graph.failures()
    assert count == 1
    assert "no room" in rows[0][1]
    assert graph.published(orders.ingress) == 1


async def test_m36_an_awaiting_publish_waits_for_credit_and_can_be_cancelled() -> None:
    graph = Graph()
    orders = box(graph, capacity=1)
    consumer = orders.consumer()
    await graph.apublish(orders.ingress, 1)
    cancelled = asyncio.ensure_future(graph.apublish(orders.ingress, 2))
    waiting = asyncio.ensure_future(graph.apublish(orders.ingress, 3))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert not waiting.done()
    assert drain(consumer) == [1]
    event = await asyncio.wait_for(waiting, 60)
    assert (event.value, event.seq) == (3, 2)


def test_m36_reject_write_tells_the_producer_and_stores_nothing() -> None:
    graph = Graph()
    orders = box(graph, capacity=1, overflow_policy="reject_write")
    orders.publish(1)
    with pytest.raises(QueueFull, match="orders"):
        orders.publish(2)
    latest = graph.latest(orders.ingress)
    assert latest is not None
    assert (latest.value, graph.published(orders.ingress)) == (1, 1)
    assert orders.snapshot().rejected == 1
    assert drain(orders.consumer()) == [1]


@pytest.mark.parametrize(
    ("policy", "left", "reason"),
    [
        ("drop_newest", [1, 2], "overflow_newest"),
        ("drop_oldest", [3, 4], "overflow_oldest"),
        ("coalesce_latest", [1, 4], "coalesced"),
    ],
)
def test_m36_what_is_lost_is_counted(policy: str, left: list[int], reason: str) -> None:
    graph = Graph()
    orders = box(graph, capacity=2, overflow_policy=policy)
    graph.publish_many(orders.ingress, [1, 2, 3, 4])
    counters = orders.snapshot().counters
    assert (counters.dropped, counters.unexplained) == ({reason: 2}, 0)
    assert drain(orders.consumer()) == left


def test_m36_a_leased_entry_is_never_dropped() -> None:
    graph = Graph()
    orders = box(graph, capacity=1, overflow_policy="drop_oldest")
    consumer = orders.consumer()
    orders.publish(1)
    delivery = consumer.receive_nowait()
    assert delivery is not None
    orders.publish(2)
    assert orders.snapshot().counters.dropped == {"overflow_newest": 1}
    delivery.ack()


def test_m36_deadline_drop_makes_room_by_what_is_past_its_time_and_refuses_else() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    orders = box(graph, capacity=2, overflow_policy="deadline_drop", ttl=10.0)
    orders.publish(1)
    clock.advance(5)
    orders.publish(2)
    with pytest.raises(QueueFull):
        orders.publish(3)
    clock.advance(5)
    orders.publish(4)
    assert orders.snapshot().counters.dropped == {"deadline": 1}
    assert drain(orders.consumer()) == [2, 4]


def test_m36_spill_to_store_keeps_everything_in_order(tmp_path: Path) -> None:
    graph = Graph()
    orders = box(graph, capacity=4, overflow_policy="spill_to_store", spill=tmp_path)
    consumer = orders.consumer()
    graph.publish_many(orders.ingress, list(range(40)))
    snapshot = orders.snapshot()
    assert (snapshot.depth, snapshot.spilled, snapshot.counters.pending) == (4, 36, 40)
    got = []
    for number in range(60):
        if number < 20:
            orders.publish(40 + number)
        got += drain(consumer) if number % 7 == 0 else []
    got += drain(consumer)
    assert got == list(range(60))
    counters = orders.snapshot().counters
    assert (counters.delivered, counters.dropped, counters.unexplained) == (60, {}, 0)


def test_m36_what_is_on_disk_comes_first_in_the_next_life(tmp_path: Path) -> None:
    graph = Graph()
    orders = box(graph, capacity=1, overflow_policy="spill_to_store", spill=tmp_path)
    graph.publish_many(orders.ingress, [1, 2, 3])
    orders.close()
    again = Graph()
    orders = box(again, capacity=1, overflow_policy="spill_to_store", spill=tmp_path)
    orders.publish(4)
    assert orders.snapshot().spilled == 3
    assert drain(orders.consumer()) == [2, 3, 4]
    assert orders.snapshot().counters.unexplained == 0


def test_m36_a_spill_that_cannot_be_written_is_counted_and_told(tmp_path: Path) -> None:
    graph = Graph()
    orders = box(graph, capacity=1, overflow_policy="spill_to_store", spill=tmp_path)
    spill: Any = orders._spill
    spill.close()
    graph.publish_many(orders.ingress, [1, 2])
    counters = orders.snapshot().counters
    assert (counters.dropped, counters.unexplained) == ({"overflow_newest": 1}, 0)
    assert "disk" in graph.failures()[1][0][1]


def test_m36_an_event_larger_than_the_mailbox_is_refused() -> None:
    graph = Graph()
    scans = graph.mailbox("scans", MailboxDescriptor(max_bytes=100), schema=Schema.bytes())
    scans.publish(b"x" * 60)
    with pytest.raises(WouldBlock):
        graph.try_publish(scans.ingress, b"x" * 60)
    with pytest.raises(TooLarge):
        scans.publish(b"x" * 101)
    assert (scans.snapshot().payload_bytes, scans.snapshot().depth) == (60, 1)


# M37: delivery modes


def test_m37_mpsc_serial_has_one_consumer() -> None:
    graph = Graph()
    orders = box(graph)
    first = orders.consumer()
    with pytest.raises(WiringError, match="one consumer"):
        orders.consumer()
    with pytest.raises(WiringError, match="one consumer"):
        graph.connect(orders, A)
    first.close()
    graph.connect(orders, A)
    with pytest.raises(WiringError):
        graph.connect(orders, B)


def test_m37_mpmc_unique_gives_each_entry_to_one_member_of_each_group() -> None:
    graph = Graph()
    orders = box(graph, delivery_mode="mpmc_unique")
    one, two, other = orders.consumer(), orders.consumer(), orders.consumer("audit")
    graph.publish_many(orders.ingress, list(range(10)))
    got: list[list[int]] = [[], []]
    for _ in range(5):
        for place, consumer in enumerate((one, two)):
            delivery = consumer.receive_nowait()
            assert delivery is not None
            got[place].append(delivery.value)
            delivery.ack()
    assert sorted(got[0] + got[1]) == list(range(10))
    assert len(got[0]) == 5
    assert orders.snapshot().depth == 10
    assert drain(other) == list(range(10))
    assert orders.snapshot().depth == 0


def test_m37_two_connected_routes_share_what_is_unique_and_copy_what_is_replicated() -> None:
    for mode, wanted in (("mpmc_unique", 6), ("mpmc_replicated", 12)):
        graph = Graph()
        orders = box(graph, delivery_mode=mode)
        seen = [collect(graph, A), collect(graph, B)]
        edges = [graph.connect(orders, A), graph.connect(orders, B)]
        events = [orders.publish(number) for number in range(6)]
        assert sum(map(len, seen)) == wanted
        assert all(part for part in seen)
        assert seen[0][0].parents[0] in {event.id for event in events}
        edges[0].close()
        orders.publish(9)
        assert seen[0][-1].value != 9
        assert seen[1][-1].value == 9


def test_m37_mpmc_replicated_gives_every_consumer_its_own_copy() -> None:
    graph = Graph()
    orders = box(graph, delivery_mode="mpmc_replicated")
    one, two = orders.consumer(), orders.consumer()
    graph.publish_many(orders.ingress, [1, 2, 3])
    assert drain(one) == [1, 2, 3]
    assert orders.snapshot().depth == 3
    two.close()
    assert orders.snapshot().depth == 0


def test_m37_key_affine_keeps_a_key_with_its_member_until_nothing_of_it_is_in_flight() -> None:
    graph = Graph()
    orders = box(graph, delivery_mode="key_affine", capacity=512)
    one, two = orders.consumer(name="one"), orders.consumer(name="two")
    for number in range(200):
        orders.publish(number, key=f"k{number % 20}")
    held: dict[str, set[str]] = {}
    first = {name: consumer.receive_nowait() for name, consumer in (("one", one), ("two", two))}
    for name, delivery in first.items():
        assert delivery is not None
        held.setdefault(str(delivery.event.key), set()).add(name)
    third = orders.consumer(name="three")
    order: dict[str, list[int]] = {}
    for name, consumer in (("three", third), ("one", one), ("two", two)):
        for delivery in consumer:
            key = str(delivery.event.key)
            held.setdefault(key, set()).add(name)
            order.setdefault(key, []).append(delivery.value)
            delivery.ack()
    assert all(len(names) == 1 for names in held.values()), held
    assert {name for names in held.values() for name in names} == {"one", "two", "three"}
    assert all(values == sorted(values) for values in order.values())


# M38: orderings


def test_m38_priority_is_stable() -> None:
    graph = Graph()
    orders = box(graph, ordering_policy="priority_stable")
    for number, qos in enumerate((0, 5, 1, 5, 0)):
        orders.publish(number, qos=qos)
    assert drain(orders.consumer()) == [1, 3, 2, 0, 4]


def test_m38_turns_are_taken_by_weight() -> None:
    graph = Graph()
    orders = box(graph, ordering_policy="weighted_fair", weights={"a": 3})
    for number in range(16):
        orders.publish(number, key="a" if number < 8 else "b")
    assert drain(orders.consumer()) == [0, 1, 2, 8, 3, 4, 5, 9, 6, 7, 10, 11, 12, 13, 14, 15]


def test_m38_producers_take_turns() -> None:
    graph = Graph()
    orders = box(graph, ordering_policy="round_robin_by_producer")
    graph.publish_many(orders.ingress, [1, 2, 3])
    far = Graph(name="far")
    with far.tap(orders.ingress) as tap:
        far.publish_many(orders.ingress, [10, 20])
        batch = tap.drain()
        assert batch is not None
        graph.inlet(orders.ingress).push(
            batch.meta, batch.payload, producer=far.producer, incarnation=far.incarnation
        )
    assert len(orders.snapshot().producers) == 2
    assert drain(orders.consumer()) == [1, 10, 2, 20, 3]


def test_m38_keyed_fifo_lets_one_entry_of_a_key_be_in_flight() -> None:
    graph = Graph()
    orders = box(graph, ordering_policy="keyed_fifo", delivery_mode="mpmc_unique")
    consumer = orders.consumer()
    for number in range(4):
        orders.publish(number, key="ab"[number % 2])
    first, second = consumer.receive_nowait(), consumer.receive_nowait()
    assert consumer.receive_nowait() is None
    assert first is not None
    assert second is not None
    assert (first.value, second.value) == (0, 1)
    second.ack()
    third = consumer.receive_nowait()
    assert third is not None
    assert third.value == 3


def test_m38_latest_only_holds_one_and_unordered_says_so() -> None:
    graph = Graph()
    latest = box(graph, ordering_policy="latest_only")
    graph.publish_many(latest.ingress, [1, 2, 3])
    assert latest.snapshot().counters.dropped == {"coalesced": 2}
    assert drain(latest.consumer()) == [3]
    loose = graph.mailbox("loose", MailboxDescriptor(ordering_policy="unordered"), schema=INT)
    loose.publish(1)
    delivery = loose.consumer().receive_nowait()
    assert delivery is not None
    assert delivery.event.taints == ["ORDER_POSSIBLY_OUT_OF_ORDER"]


# M39: payloads; leases, redelivery, poison


def test_m39_queued_entries_keep_their_payloads_and_reach_observers_when_connected() -> None:
    graph = Graph()
    orders = box(graph)
    graph.configure_retention(orders.ingress, history=0)
    graph.publish_many(orders.ingress, [1, 2, 3])
    seen = collect(graph, A)
    graph.connect(orders, A)
    assert [event.value for event in seen] == [1, 2, 3]


def test_m39_given_back_entries_come_first_again_and_say_so() -> None:
    graph = Graph()
    orders = box(graph)
    consumer = orders.consumer()
    graph.publish_many(orders.ingress, [1, 2])
    delivery = consumer.receive_nowait()
    assert delivery is not None
    delivery.nack(reason="busy")
    delivery.nack()
    again = consumer.receive_nowait()
    assert again is not None
    assert (again.value, again.attempt, again.event.taints) == (1, 2, ["DELIVERY_DUPLICATED"])
    with pytest.raises(LeaseExpired) as caught:
        delivery.ack()
    assert caught.value.current == again.ticket
    again.ack()
    again.ack()
    assert drain(consumer) == [2]


def test_m39_a_lease_that_runs_out_gives_the_entry_to_somebody_else() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    orders = box(graph, delivery_mode="mpmc_unique", lease=5.0, backoff=1.0)
    slow, quick = orders.consumer(), orders.consumer()
    orders.publish(1)
    late = slow.receive_nowait()
    assert late is not None
    clock.advance(5)
    graph.advance()
    assert quick.receive_nowait() is None
    clock.advance(1)
    graph.advance()
    found = quick.receive_nowait()
    assert found is not None
    assert found.attempt == 2
    with pytest.raises(LeaseExpired):
        late.ack()
    found.ack()
    assert orders.snapshot().counters.delivered == 1


def test_m39_a_consumer_that_waits_gets_what_runs_out_without_anybody_else_doing_anything() -> None:
    graph = Graph()
    orders = box(graph, delivery_mode="mpmc_unique", lease=0.05)
    slow, quick = orders.consumer(), orders.consumer()
    orders.publish(1)
    assert slow.receive_nowait() is not None
    found = quick.receive(60)
    assert found is not None
    assert found.attempt == 2
    found.ack()


def test_m39_after_the_last_attempt_it_goes_to_the_poison_route_with_the_reason() -> None:
    graph = Graph()
    orders = box(graph, max_attempts=2)
    poisoned = collect(graph, orders.poison)
    consumer = orders.consumer()
    event = orders.publish(1)
    orders.publish(2)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), consumer.receive(60) or pytest.fail("nothing"):
            raise ZeroDivisionError("by zero")
    assert [(e.value, e.parents) for e in poisoned] == [(1, [event.id])]
    assert "attempt 2: ZeroDivisionError: by zero" in str(poisoned[0].operator)
    delivery = consumer.receive_nowait()
    assert delivery is not None
    delivery.nack(retryable=False)
    assert [e.value for e in poisoned] == [1, 2]
    assert orders.snapshot().groups[0].poisoned == 2
    assert graph.failures()[0] == 2


def test_m40_a_snapshot_tells_the_truth() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    orders = box(graph, capacity=3, overflow_policy="drop_oldest")
    consumer = orders.consumer(name="picker")
    graph.publish_many(orders.ingress, [1, 2, 3, 4])
    clock.advance(2)
    assert consumer.receive_nowait() is not None
    snapshot = orders.snapshot()
    assert (snapshot.depth, snapshot.credit, snapshot.oldest_age, snapshot.payload_bytes) == (3, 0, 2.0, 24)
    (group,) = snapshot.groups
    assert (group.name, group.members, group.waiting, group.leased) == ("consumers", ("picker",), 2, 1)
    assert snapshot.producers == {(graph.producer, graph.incarnation): 3}
    assert snapshot.counters.dropped == {"overflow_oldest": 1}
    (edge,) = graph.edges()
    assert (edge.name, edge.kind) == ("orders", "mailbox")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 2)),
            st.tuples(st.sampled_from("ranl"), st.integers(0, 5)),
        ),
        max_size=60,
    ),
    st.sampled_from(
        ["fifo", "priority_stable", "weighted_fair", "round_robin_by_producer", "keyed_fifo", "unordered"]
    ),
    st.sampled_from(["mpsc_serial", "mpmc_unique", "key_affine"]),
    st.sampled_from(["reject_write", "drop_oldest", "drop_newest", "coalesce_latest"]),
)
@settings(max_examples=120, deadline=None)
def test_m37_nothing_is_lost_or_given_twice(
    steps: list[tuple[str, int]], ordering: Any, mode: Any, overflow: Any
) -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    orders = box(
        graph,
        capacity=5,
        ordering_policy=ordering,
        delivery_mode=mode,
        overflow_policy=overflow,
        max_attempts=1000,
        lease=10.0,
    )
    consumers = [orders.consumer() for _ in range(1 if mode == "mpsc_serial" else 2)]
    held: list[Any] = []
    done: list[tuple[str, int]] = []
    number = 0
    for what, value in steps:
        if what == "publish":
            number += 1
            try:
                orders.publish(number, key="abc"[value], qos=value)
            except QueueFull:
                number -= 1
        elif what == "r":
            found = consumers[value % len(consumers)].receive_nowait()
            if found is not None:
                assert found.value not in [other.value for other in held]
                held.append(found)
        elif what == "l":
            clock.advance(10)
            graph.advance()
            held.clear()
        elif held:
            delivery = held.pop(value % len(held))
            if what == "a":
                delivery.ack()
                done.append((str(delivery.event.key), delivery.value))
            else:
                delivery.nack()
    for delivery in held:
        delivery.nack()
    for consumer in [*consumers, *consumers]:
        for delivery in consumer:
            done.append((str(delivery.event.key), delivery.value))
            delivery.ack()
    counters = orders.snapshot().counters
    assert counters.unexplained == 0
    assert counters.pending == 0
    values = [value for _, value in done]
    assert len(values) == len(set(values)) == counters.delivered
    assert counters.delivered + sum(counters.dropped.values()) == number


# M33, M34: policies and credit


def test_m33_unknown_values_are_refused_and_fields_compose_one_by_one() -> None:
    with pytest.raises(WiringError, match="whatever"):
        FlowPolicy(overflow="whatever")
    graph = Graph()
    graph.configure_flow_defaults(FlowPolicy(async_boundary="queued", overflow="drop_oldest"))
    graph.configure_source_flow(A, FlowPolicy(overflow="drop_newest", backpressure="isolate"))
    graph.configure_sink_flow(B, FlowPolicy(overflow="coalesce_latest"))
    policy = graph.resolve_flow(A, B, FlowPolicy(credit_class="debug"))
    assert policy == FlowPolicy("isolate", "debug", "none", "queued", "coalesce_latest")
    orders = box(graph, overflow_policy="reject_write")
    assert graph.resolve_flow(A, orders).overflow == "drop_newest"
    assert graph.resolve_flow(C, orders).overflow == "reject_write"
    assert graph.resolve_flow(C, orders).mailbox == "orders"
    assert [builtin_policy(r).credit_class for r in (A, BULK, COMMAND)] == [
        "default",
        "bulk_payload",
        "control",
    ]


def test_m33_the_policy_that_is_shown_is_the_one_that_is_executed() -> None:
    graph = Graph()
    seen = collect(graph, B)
    gate = threading.Event()
    graph.observe(A, lambda event: gate.wait(60), capacity=1, overflow="drop_newest", replay_latest=False)
    policy = FlowPolicy(async_boundary="queued", overflow="drop_newest", credit_class="control")
    edge = graph.connect(A, B, flow=policy)
    description = graph.describe_edge(edge)
    assert description.flow is graph.describe_edge(edge.number).flow
    assert (description.flow.overflow, description.kind) == ("drop_newest", "mailbox")
    assert description.credit is not None
    assert description.credit.capacity == CREDIT_CLASSES["control"].envelopes
    graph.publish_many(A, list(range(10)))
    assert [event.value for event in seen] == list(range(10))
    gate.set()
    inline = graph.connect(B, C)
    assert graph.describe_edge(inline).flow.async_boundary == "inline"
    edge.close()
    with pytest.raises(WiringError, match="no edge"):
        graph.describe_edge(edge)
    text: Any = graph.mailbox("text", schema=Schema.str())
    with pytest.raises(SchemaMismatch):
        graph.connect(A, text)


def test_m33_reject_write_and_block_hold_producers_up_through_operators_and_connections() -> None:
    graph = Graph()
    graph.pipe(A).map(lambda value: value + 1).into(B)
    graph.connect(B, C)
    with graph.stream(C, capacity=2, overflow="reject") as stream:
        graph.publish(A, 1)
        graph.publish(A, 2)
        with pytest.raises(QueueFull):
            graph.publish(A, 3)
        assert graph.published(A) == 2
        assert graph.flow_snapshot(A).available == 0
        assert [event.value for event in stream.blocking(0.0)] == [2, 3]
        graph.publish(A, 3)
    graph.publish_many(A, list(range(10)))
    isolated = Graph()
    isolated.connect(A, B, flow=FlowPolicy(backpressure="isolate"))
    with isolated.stream(B, capacity=1, overflow="block") as stream:
        isolated.publish_many(A, [1, 2, 3])
        assert stream.counters.dropped == {"overflow_newest": 2}


def test_m34_credit_is_spent_comes_back_and_never_goes_below_zero(releasing: list[threading.Thread]) -> None:
    graph = Graph()
    stream = graph.stream(A, capacity=3, overflow="block", replay_latest=False)
    total = 300

    def produce(first: int) -> None:
        for number in range(total):
            graph.publish(A, first + number)

    for worker in range(3):
        releasing.append(threading.Thread(target=produce, args=(worker * total,)))
        releasing[-1].start()
    got = []
    for event in stream.blocking(60):
        (info,) = graph.credit_snapshot()
        assert 0 <= info.available <= 3
        got.append(event)
        if len(got) == 3 * total:
            break
    assert [event.seq for event in got] == list(range(1, 3 * total + 1))
    assert sorted(event.value for event in got) == list(range(3 * total))
    (info,) = graph.credit_snapshot()
    assert (info.spent, info.granted, info.available, info.on_the_way) == (3 * total, 3 * total + 3, 3, 0)
    assert info.authority == "consumer"
    stream.close()
    assert graph.credit_snapshot() == []
    graph.publish(A, 1)


def test_m34_a_slow_lossy_branch_does_not_hold_up_the_lossless_ones() -> None:
    graph = Graph()
    lossy = graph.stream(A, capacity=1, replay_latest=False)
    sure = graph.stream(A, capacity=5, overflow="reject", replay_latest=False)
    graph.publish_many(A, [1, 2, 3])
    assert graph.flow_snapshot(A).available == 2
    assert graph.flow_snapshot(A).dropped == {"overflow_oldest": 2}
    assert (lossy.counters.pending, sure.counters.pending) == (1, 3)


def test_m34_the_last_of_the_input_queue_is_kept_for_commands() -> None:
    graph = Graph()
    results: list[str] = []
    debug = route("dock", "crane", "log", schema=INT, plane="debug", variant="debug")

    def flood(event: Event[int]) -> None:
        each: tuple[tuple[Any, Any], ...] = ((debug, 1), (BULK, b""), (COMMAND, 1))
        for r, value in each:
            try:
                for _ in range(70_000):
                    graph.publish(r, value)
            except QueueFull:
                results.append(f"{graph.published(r)}")

    graph.observe(A, flood)
    graph.publish(A, 1)
    assert [int(count) for count in results] == [65_536 - 16_384, 16_384 - 1024, 1024]
    assert [graph.flow_snapshot(r).lane for r in (debug, BULK, COMMAND, A)] == [
        "debug",
        "payload",
        "control",
        "metadata",
    ]


def test_m15_connections_go_through_and_cycles_need_a_mailbox() -> None:
    graph = Graph()
    seen = collect(graph, C)
    graph.connect(A, B)
    graph.connect(B, C)
    first = graph.publish(A, 1)
    assert [event.value for event in seen] == [1]
    assert seen[0].trace == first.trace
    with pytest.raises(WiringError, match="cycle"):
        graph.connect(C, A)
    orders = box(graph, capacity=1)
    graph.connect(C, orders)
    graph.pipe(orders.ingress).observe(lambda value: None)
    graph.publish(A, 2)
    assert orders.snapshot().depth == 1
