"""Operators as nodes of the graph: what is shown of them, what they count, and taking them off."""

from __future__ import annotations

import pytest
from meshfold.core import Graph, Pipeline, Port, Schema, Stage, Taint, WiringError, route

A = route("op", "test", "a", schema=Schema.float())
B = route("op", "test", "b", schema=Schema.float())
C = route("op", "test", "c", schema=Schema.float())


def test_an_operator_is_visible_with_its_stages_and_can_be_removed() -> None:
    graph = Graph()
    operator = graph.pipe(A).map(lambda value: value * 2).distinct().into(B)
    graph.publish_many(A, [1.0, 1.0, 2.0])
    info = operator.describe()
    assert [stage.kind for stage in info.stages] == ["foreign", "distinct"]
    assert info.stages[1].config == {"keys_max": 65_536}
    assert info.stages[1].gauges == {"keys": 1}
    assert (info.inputs, info.sink) == (((A, 0, "in"),), B)
    assert (info.emitted, info.dropped) == (2, {"coalesced": 1})
    counters = operator.counters
    assert (counters.offered, counters.delivered, counters.dropped) == (3, 2, {"coalesced": 1})
    assert counters.unexplained == 0
    assert graph.operators() == [info]
    operator.close()
    operator.close()
    assert graph.operators() == []
    assert graph.edges() == []
    graph.publish(A, 9.0)
    assert graph.published(B) == 2
    with pytest.raises(WiringError, match="closed"):
        operator.describe()


def test_wrong_descriptions_are_refused_by_name_and_nothing_is_installed() -> None:
    graph = Graph()
    with pytest.raises(WiringError, match="unknown operator banana"):
        graph.pipe(A).stage(Stage("banana")).into(B)
    with pytest.raises(WiringError, match="unknown field `key`"):
        graph.pipe(A).stage(Stage("distinct", {"key": 1})).into(B)
    with pytest.raises(WiringError, match="no port 3"):
        graph.pipe(A).stage(Stage("distinct", ports=(Port(3, C),))).into(B)
    with pytest.raises(WiringError, match="no output late"):
        graph.pipe(A).stage(Stage("distinct", sides={"late": C})).into(B)
    with pytest.raises(WiringError, match="cycle"):
        graph.pipe(A).distinct().into(A)
    assert graph.operators() == []
    assert graph.edges() == []


def test_a_checkpoint_goes_on_where_it_was_taken() -> None:
    graph = Graph()
    first = graph.pipe(A).distinct().into(B)
    graph.publish(A, 4.0)
    state = first.checkpoint()
    first.close()
    second = graph.pipe(A).distinct().into(B)
    second.restore(state)
    graph.publish_many(A, [4.0, 5.0])
    latest = graph.latest(B)
    assert latest is not None
    assert (latest.value, latest.seq) == (5.0, 2)
    with pytest.raises(WiringError, match="not its state"):
        second.restore([b"\xff\xff"])
    assert second.checkpoint() == [*second.checkpoint()]
    with pytest.raises(WiringError, match="2 stages"):
        second.restore([b"", b""])


def test_taints_and_parents_go_through_several_operators() -> None:
    graph = Graph()
    graph.pipe(A).distinct().into(B)
    graph.pipe(B).map(lambda value: value + 1).distinct().into(C)
    source = graph.publish(A, 1.0, taints=[Taint.TIME_REPAIRED], key="k", correlation="job")
    middle, last = graph.latest(B), graph.latest(C)
    assert middle is not None
    assert last is not None
    assert last.parents == [middle.id]
    assert (last.taints, last.key, last.correlation) == (["TIME_REPAIRED"], "k", "job")
    assert (last.trace, last.causality) == (source.trace, source.id)


def test_a_failing_function_is_counted_and_its_operator_goes_on() -> None:
    graph = Graph()
    pipe: Pipeline[float] = graph.pipe(A).map(lambda value: 1 / value)
    operator = pipe.into(B)
    graph.publish_many(A, [0.0, 2.0])
    assert operator.describe().failed == 1
    count, rows = graph.failures()
    assert count == 1
    assert "division" in rows[0][1]
    assert graph.published(B) == 1


def test_a_source_replayed_at_install_counts_as_a_replay() -> None:
    graph = Graph()
    graph.publish(A, 3.0)
    pipe: Pipeline[float] = Pipeline(graph, A, replay=True)
    operator = pipe.distinct().into(B)
    latest = graph.latest(B)
    assert latest is not None
    assert latest.value == 3.0
    assert (operator.counters.offered, operator.counters.replayed) == (0, 1)
