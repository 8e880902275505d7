"""Declared bounds of taints: told before any event comes, held on every way in, and never smaller (S29)."""

from __future__ import annotations

import pytest
from meshfold.core import Event, Graph, MeshfoldError, Schema, Taint, TaintBound, TaintExceeded, route
from meshfold.core.query import BoundRow, TaintRow

IN = route("bound", "test", "in", schema=Schema.float())
OUT = route("bound", "test", "out", schema=Schema.float())


def test_m96_a_declared_bound_is_told_before_any_event() -> None:
    graph = Graph()
    assert graph.taint_bound(OUT).declared is None
    graph.bound_taints(OUT, [Taint.TIME_ESTIMATED])
    bound = graph.taint_bound(OUT)
    assert bound == TaintBound(OUT.text, frozenset({Taint.TIME_ESTIMATED}), frozenset())
    rows = graph.query("taints", route=OUT.text).rows
    assert rows == [BoundRow(OUT.text, ["TIME_ESTIMATED"], [])]


def test_m96_a_publish_above_it_is_refused_and_uses_no_number() -> None:
    graph = Graph()
    graph.bound_taints(IN, [Taint.TIME_ESTIMATED])
    graph.publish(IN, 1.0, taints=[Taint.TIME_ESTIMATED, Taint.ORDER_STRICT])
    with pytest.raises(TaintExceeded, match="DELIVERY_SAMPLED is above the declared bound") as caught:
        graph.publish(IN, 2.0, taints=[Taint.DELIVERY_SAMPLED])
    assert caught.value.taints == "DELIVERY_SAMPLED"
    tainted = graph.publish(OUT, 3.0, taints=[Taint.SCHED_GATED])
    with pytest.raises(TaintExceeded, match="SCHED_GATED"):
        graph.publish(IN, 4.0, parents=[tainted])
    graph.observe(IN, lambda event: None)
    with pytest.raises(TaintExceeded):
        graph.publish(IN, 2.0, taints=[Taint.DELIVERY_SAMPLED])
    assert graph.publish(IN, 5.0).seq == 2
    assert [event.value for event in graph.history(IN)] == [1.0, 5.0]


@pytest.mark.parametrize("way", ["pipe", "connect", "mailbox"])
def test_m96_what_an_operator_makes_above_it_is_its_failure(way: str) -> None:
    graph = Graph()
    graph.bound_taints(OUT, [])
    if way == "pipe":
        graph.pipe(IN).map(lambda item: item).into(OUT)
    elif way == "connect":
        graph.connect(IN, OUT)
    else:
        box = graph.mailbox("box", schema=Schema.float())
        graph.connect(IN, box)
        box.connect(OUT)
    seen: list[float] = []
    graph.observe(OUT, lambda event: seen.append(event.value))
    graph.publish(IN, 1.0)
    graph.publish(IN, 2.0, taints=[Taint.TIME_UNKNOWN])
    graph.publish(IN, 3.0)
    assert seen == [1.0, 3.0]
    count, failures = graph.failures()
    assert count == 1
    assert "above the bound" in failures[0][1]
    assert graph.published(OUT) == 2


def test_m96_a_batch_from_elsewhere_above_it_is_refused_whole() -> None:
    here, there = Graph(name="here"), Graph(name="there")
    tap = there.tap(IN)
    there.publish(IN, 1.0)
    there.publish(IN, 2.0, taints=[Taint.TIME_UNKNOWN])
    batch = tap.drain()
    assert batch is not None
    here.bound_taints(IN, [Taint.TIME_ESTIMATED])
    inlet = here.inlet(IN)
    with pytest.raises(TaintExceeded, match="TIME_UNKNOWN"):
        inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
    assert here.latest(IN) is None
    assert inlet.counters() == []
    here.bound_taints(IN, [Taint.TIME_ESTIMATED, Taint.TIME_UNKNOWN])
    taken = inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
    assert taken.delivered == 2


def test_m96_a_bound_only_grows_and_what_was_seen_does_not_roll_out() -> None:
    graph = Graph()
    graph.configure_retention(IN, history=2)
    graph.publish(IN, 0.0, taints=[Taint.TIME_UNKNOWN])
    for number in range(10):
        graph.publish(IN, float(number), taints=[Taint.DELIVERY_COMPLETE])
    assert graph.taint_bound(IN).seen == {Taint.TIME_UNKNOWN}
    rows = graph.query("taints", route=IN.text).rows
    assert [type(row) for row in rows] == [BoundRow, TaintRow]
    assert isinstance(rows[0], BoundRow)
    assert rows[0].seen == ["TIME_UNKNOWN"]
    with pytest.raises(TaintExceeded, match="may carry TIME_UNKNOWN"):
        graph.bound_taints(IN, [Taint.DELIVERY_SAMPLED])
    assert graph.taint_bound(IN).declared is None
    graph.bound_taints(IN, [Taint.TIME_UNKNOWN, Taint.DELIVERY_SAMPLED])
    with pytest.raises(TaintExceeded, match="DELIVERY_SAMPLED"):
        graph.bound_taints(IN, [Taint.TIME_UNKNOWN])
    with pytest.raises(MeshfoldError, match="unknown taint"):
        graph.bound_taints(IN, ["TIME_WARPED"])


def test_m96_a_repair_brings_it_below_the_bound() -> None:
    graph = Graph()
    graph.bound_taints(OUT, [Taint.TIME_REPAIRED])
    repaired = graph.pipe(IN).repair(
        "time",
        cleared=[Taint.TIME_UNKNOWN],
        added=[Taint.TIME_REPAIRED],
        proof="one tick a second",
        by="test",
    )
    repaired.into(OUT)
    graph.publish(IN, 1.0, taints=[Taint.TIME_UNKNOWN])
    made: Event[float] | None = graph.latest(OUT)
    assert made is not None
    assert made.taints == ["TIME_REPAIRED"]
