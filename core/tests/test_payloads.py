"""Lazy payloads, ephemeral routes and checkpoints: what is read, when, and what is gone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import (
    Event,
    Graph,
    PayloadGone,
    Schema,
    StoreDamaged,
    WiringError,
    WouldBlock,
    route,
    value,
)
from meshfold.core.clocks import ManualClock
from meshfold.core.errors import PayloadDamaged, TooLarge
from meshfold.core.payloads import LazyPayloadSource, PayloadPolicy
from meshfold.core.stores import Keyspace

CLOUD = route("lidar-1", "scan", "cloud", schema=Schema.str(), layer="bulk")
NUMBERS = route("lidar-1", "scan", "numbers", schema=Schema.int())
OUT = route("lidar-1", "scan", "out", schema=Schema.int())
ASK = route("lidar-1", "scan", "ask", schema=Schema.bool())


class Disk:
    """A source that counts how often it is read."""

    def __init__(self, data: bytes = b"points") -> None:
        self.data = data
        self.reads = 0

    def __call__(self) -> bytes:
        self.reads += 1
        return self.data


def test_m90_whoever_looks_at_metadata_reads_no_payload() -> None:
    graph = Graph()
    disk = Disk()
    seen: list[Event[str]] = []
    graph.observe(CLOUD, seen.append)
    graph.pipe(CLOUD).filter(lambda value: True).into(route("lidar-1", "scan", "copy", schema=Schema.str()))
    event = graph.publish_lazy(CLOUD, LazyPayloadSource(disk), key="k", epoch=3)
    assert (seen[0].id, seen[0].key, seen[0].epoch, seen[0].payload) == (event.id, "k", 3, None)
    assert graph.latest(CLOUD) is not None
    with pytest.raises(PayloadGone):
        _ = event.value
    assert disk.reads == 0
    assert graph.open_payload(event).value == "points"
    assert graph.open_payload(CLOUD).data == b"points"
    assert disk.reads == 1
    (demand,) = graph.payload_demand_snapshot()
    assert (demand.opens, demand.fetches, demand.hits, demand.fetched_bytes, demand.kept_bytes) == (
        2,
        1,
        1,
        6,
        6,
    )


def test_m91_a_function_never_gets_none_for_a_payload_that_is_not_here() -> None:
    graph = Graph()
    got: list[Any] = []
    copy = route("lidar-1", "scan", "copy", schema=Schema.str())
    graph.pipe(CLOUD).do_action(got.append).into(copy, name="called")
    graph.pipe(CLOUD).observe(got.append, name="observed")
    graph.pipe(CLOUD).filter(value != "x").into(copy, name="expression")
    graph.window(CLOUD, 2).observe(got.append, name="window")
    graph.publish_lazy(CLOUD, LazyPayloadSource(Disk()))
    assert got == []
    count, failures = graph.failures()
    assert count == 4
    assert sum("PayloadGone: the payload is not here" in error for _, error in failures) == 3
    assert sum("payload that is not here" in error for _, error in failures) == 1
    assert graph.published(copy) == 0
    # One that is here goes on as ever.
    graph.publish(CLOUD, "points")
    assert "points" in got


def test_m90_an_eager_payload_opens_as_well() -> None:
    graph = Graph()
    event = graph.publish(CLOUD, "here")
    assert graph.open_payload(event).value == "here"
    with pytest.raises(PayloadGone):
        graph.open_payload(NUMBERS)


def test_m90_opens_at_the_same_time_share_one_fetch() -> None:
    graph = Graph()
    begun, go = threading.Event(), threading.Event()
    reads: list[int] = []

    def slow() -> bytes:
        reads.append(1)
        begun.set()
        assert go.wait(60)
        return b"points"

    event = graph.publish_lazy(CLOUD, LazyPayloadSource(slow))
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(graph.open_payload(event).value)) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    while graph.payload_demand_snapshot()[0].shared < 4:
        pass
    with pytest.raises(WouldBlock):
        graph.open_payload(event, wait=False)
    go.set()
    for thread in threads:
        thread.join(60)
    assert got == ["points"] * 5
    assert reads == [1]


def test_m91_opening_what_was_evicted_is_an_error_and_never_empty_bytes() -> None:
    graph = Graph()
    graph.configure_payloads(CLOUD, PayloadPolicy(max_bytes=10))
    first = graph.publish_lazy(CLOUD, LazyPayloadSource(Disk()))
    second = graph.publish_lazy(CLOUD, LazyPayloadSource(Disk()))
    graph.open_payload(first)
    graph.open_payload(second)
    with pytest.raises(PayloadGone) as caught:
        graph.open_payload(first)
    assert caught.value.event == first.id
    graph.evict_payload(second)
    graph.evict_payload(second)
    with pytest.raises(PayloadGone):
        graph.open_payload(second)
    assert graph.payload_demand_snapshot()[0].gone == 2
    with pytest.raises(WiringError, match="already"):
        graph.configure_payloads(CLOUD, PayloadPolicy())


def test_m91_each_retention_keeps_payloads_its_own_way(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        for policy, reads in (
            (PayloadPolicy("inline"), 1),
            (PayloadPolicy("external_store"), 3),
            (PayloadPolicy("separate_store", store=store), 1),
        ):
            graph, disk = Graph(), Disk()
            graph.configure_payloads(CLOUD, policy)
            graph.configure_retention(CLOUD, history=0)
            event = graph.publish_lazy(CLOUD, LazyPayloadSource(disk))
            assert [graph.open_payload(event).value for _ in range(3)] == ["points"] * 3
            assert disk.reads == reads, policy.retention
    graph, disk = Graph(), Disk()
    graph.configure_payloads(CLOUD, PayloadPolicy("non_replayable"))
    event = graph.publish_lazy(CLOUD, LazyPayloadSource(disk))
    assert graph.open_payload(event).value == "points"
    with pytest.raises(PayloadGone):
        graph.open_payload(event)
    wrongs: tuple[dict[str, Any], ...] = (
        {"retention": "somewhere"},
        {"retention": "separate_store"},
        {"opens": 0},
    )
    for wrong in wrongs:
        with pytest.raises(WiringError):
            PayloadPolicy(**wrong)


def test_m91_bytes_that_are_not_those_that_were_published_are_refused() -> None:
    graph, disk = Graph(), Disk()
    graph.configure_payloads(CLOUD, PayloadPolicy("external_store"))
    event = graph.publish_lazy(CLOUD, LazyPayloadSource(disk))
    graph.open_payload(event)
    disk.data = b"other"
    with pytest.raises(PayloadDamaged):
        graph.open_payload(event)
    wrong = graph.publish_lazy(CLOUD, LazyPayloadSource(Disk(), digest=bytes(32)))
    with pytest.raises(PayloadDamaged):
        graph.open_payload(wrong)
    assert graph.payload_demand_snapshot()[0].damaged == 2


def test_m91_a_source_that_fails_is_told_to_everybody_and_tried_again() -> None:
    graph = Graph()
    answers: list[Any] = [OSError("no disk"), b"points"]

    def read() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, bytes)
        return answer

    event = graph.publish_lazy(CLOUD, LazyPayloadSource(read))
    with pytest.raises(OSError, match="no disk"):
        graph.open_payload(event)
    assert graph.open_payload(event).value == "points"
    assert graph.payload_demand_snapshot()[0].on_the_way == 0


async def test_m91_open_credit_is_apart_from_metadata_and_bounded() -> None:
    graph = Graph()
    graph.configure_payloads(CLOUD, PayloadPolicy(opens=1, open_bytes=100))
    begun, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        begun.set()
        assert go.wait(60)
        return b"a"

    first = graph.publish_lazy(CLOUD, LazyPayloadSource(slow))
    second = graph.publish_lazy(CLOUD, LazyPayloadSource(Disk()))
    thread = threading.Thread(target=graph.open_payload, args=(first,))
    thread.start()
    assert begun.wait(60)
    with pytest.raises(WouldBlock):
        graph.open_payload(second, wait=False)
    # Metadata flows on.
    graph.publish_lazy(CLOUD, LazyPayloadSource(Disk()))
    go.set()
    assert (await graph.aopen_payload(second)).value == "points"
    thread.join(60)
    with pytest.raises(TooLarge):
        graph.publish_lazy(CLOUD, LazyPayloadSource(Disk(), logical_length_bytes=101))
    assert graph.published(CLOUD) == 3


# Ephemeral routes


def test_m102_whoever_publishes_on_an_ephemeral_route_gets_its_taint_and_its_end() -> None:
    graph = Graph()
    bare = route("a", "b", "c", schema=Schema.int(), layer="ephemeral")
    with pytest.raises(WiringError, match="time to live"):
        graph.publish(bare, 1)
    held = graph.ephemeral("a", "b", "d", schema=Schema.int(), ttl_s=60)
    graph.pipe(NUMBERS).map(lambda value: value + 1).into(held.route)
    seen: list[Event[int]] = []
    graph.observe(held.route, seen.append)
    graph.publish(NUMBERS, 1)
    graph.publish(held.route, 5)
    assert [(event.value, event.taints) for event in seen] == [
        (2, ["DET_NONREPLAYABLE"]),
        (5, ["DET_NONREPLAYABLE"]),
    ]
    with pytest.raises(WiringError, match="private"):
        graph.tap(held.route)


def test_m102_at_the_end_everything_of_it_goes() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    r = graph.ephemeral("a", "b", "c", schema=Schema.int(), ttl_s=5).route
    graph.observe(r, lambda event: None)
    graph.pipe(r).map(lambda value: value + 1).into(NUMBERS)
    back = graph.pipe(OUT).into(r)
    stream = graph.stream(r)
    graph.publish(r, 1)
    assert len(graph.edges()) == 4
    clock.advance(5)
    graph.advance()
    assert [edge.route for edge in graph.edges()] == [OUT.text]
    assert list(stream.blocking(0.0)) == []
    with pytest.raises(WiringError, match="time to live"):
        graph.publish(r, 2)
    graph.publish(OUT, 1)
    assert back.describe().dropped == {"expired": 1}
    assert graph.published(r) == 1


# Checkpoints


def wired(graph: Graph) -> list[int]:
    seen: list[int] = []
    graph.observe(OUT, lambda event: seen.append(event.value))
    graph.capacitor(NUMBERS, OUT, capacity=8, demand=ASK, name="buffer")
    return seen


def test_m60_operators_have_their_state_back_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state"
    graph = Graph(name="line")
    wired(graph)
    graph.publish_many(NUMBERS, [1, 2, 3])
    with Keyspace(path) as store:
        assert graph.checkpoint(store) == 1
        inside: list[BaseException] = []

        def take(event: Event[int]) -> None:
            try:
                graph.checkpoint(store)
            except WiringError as error:
                inside.append(error)

        graph.observe(NUMBERS, take, replay_latest=False)
        graph.publish(NUMBERS, 4)
        assert len(inside) == 1
    again = Graph(name="line")
    seen = wired(again)
    with Keyspace(path) as store:
        assert again.restore_checkpoint(store) == []
        assert Graph(name="line").restore_checkpoint(store) == ["buffer"]
        assert Graph(name="other").restore_checkpoint(store) == []
        store.put(("checkpoint", "bad"), b"no")
        with pytest.raises(StoreDamaged):
            Graph(name="bad").restore_checkpoint(store)
    for _ in range(4):
        again.publish(ASK, True)
    assert seen == [1, 2, 3]


def test_m60_two_operators_of_one_name_are_refused(tmp_path: Path) -> None:
    graph = Graph()
    for r in (NUMBERS, OUT):
        graph.capacitor(r, route("x", "y", r.addr.stream, schema=Schema.int()), demand=ASK, name="same")
        graph.publish(r, 1)
    with Keyspace(tmp_path / "k") as store, pytest.raises(WiringError, match="same"):
        graph.checkpoint(store)
