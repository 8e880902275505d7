"""Events handed over as columns: the same values, numbers, times, keys and taints as one by one."""

from __future__ import annotations

import threading
from array import array
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Action, Columns, Event, Graph, Schema, Taint, route
from meshfold.core.errors import DecodeError, PayloadGone, WiringError

FLOATS = route("col", "test", "floats", schema=Schema.float())
INTS = route("col", "test", "ints", schema=Schema.int())
TRUTHS = route("col", "test", "truths", schema=Schema.bool())
POINTS = route("col", "test", "points", schema=Schema.numpy("<f4", (2, 3)))
TEXTS = route("col", "test", "texts", schema=Schema.str())

Row = tuple[int, int | None, str | None, bool]
rows_strategy = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(0, 2**40),
        st.none() | st.sampled_from("ab"),
        st.booleans(),
    ),
    max_size=60,
)


def flat(columns: list[Columns]) -> list[Any]:
    """One row for each event, as its envelope says it."""
    found: list[Any] = []
    for part in columns:
        keys = part.keys or [None] * len(part)
        rows = zip(part.values, part.seqs, part.times, keys, strict=True)
        found += [(*row, tuple(part.taints), part.producer, part.incarnation) for row in rows]
    return found


def single(events: list[Event[Any]]) -> list[Any]:
    return [(e.value, e.seq, e.time, e.key, tuple(e.taints), e.producer, e.incarnation) for e in events]


@settings(max_examples=100, deadline=None)
@given(rows_strategy)
def test_columns_say_what_the_events_say_one_by_one(rows: list[Row]) -> None:
    graph = Graph()
    by_columns = graph.stream(INTS, replay_latest=False)
    by_events = graph.stream(INTS, replay_latest=False)
    for value, time, key, marked in rows:
        graph.publish(INTS, value, time=time, key=key, taints=[Taint.TIME_UNKNOWN] if marked else ())
    columns = list(by_columns.columns(timeout=0))
    assert flat(columns) == single(list(by_events.blocking(timeout=0)))
    counters = by_columns.counters
    assert (counters.delivered, counters.unexplained) == (len(rows), 0)


@pytest.mark.parametrize(
    ("r", "given"),
    [
        (FLOATS, numpy.array([1.5, float("nan"), float("inf"), -0.0])),
        (INTS, numpy.array([1, -(2**63), 2**63 - 1])),
        (POINTS, numpy.arange(30, dtype="<f4").reshape(5, 2, 3)),
        (TRUTHS, numpy.array([True, False, True])),
    ],
    ids=["float", "int", "numpy", "bool"],
)
def test_who_publishes_an_array_gets_an_array_back_bit_for_bit(r: Any, given: Any) -> None:
    graph = Graph()
    stream = graph.stream(r, capacity=65_536)
    graph.publish_many(r, given.tolist() if r is TRUTHS else given)
    (columns,) = stream.columns(timeout=0)
    made = numpy.asarray(columns.values)
    assert made.dtype == given.dtype
    assert made.tobytes() == given.tobytes()
    assert made.shape == given.shape
    assert not made.flags.writeable
    assert list(columns.seqs) == list(range(1, len(given) + 1))
    assert repr(columns) == f"Columns({r.text}, {len(given)} events, 1 to {len(given)})"


def test_an_observer_of_columns_gets_everything_in_order_on_its_thread() -> None:
    graph = Graph()
    found: list[float] = []
    threads: set[str] = set()
    done = threading.Event()

    def take(columns: Columns) -> None:
        found.extend(columns.values)
        threads.add(threading.current_thread().name)
        if len(found) == 50_000:
            done.set()

    with graph.observe(FLOATS, take, columns=True) as watch:
        graph.publish_many(FLOATS, array("d", range(50_000)))
        assert done.wait(30)
        assert watch.counters.dropped == {}
    assert found == [float(number) for number in range(50_000)]
    assert threading.current_thread().name not in threads


def test_a_gap_splits_nothing_and_shows_in_the_numbers() -> None:
    graph = Graph()
    stream = graph.stream(INTS, capacity=3, overflow="coalesce_latest")
    graph.publish_many(INTS, [1, 2, 3, 4, 5])
    (columns,) = stream.columns(timeout=0)
    assert (list(columns.values), list(columns.seqs)) == ([1, 2, 5], [1, 2, 5])


def test_columns_of_what_holds_producers_up_give_credit_back() -> None:
    graph = Graph()
    stream = graph.stream(INTS, capacity=4, overflow="block")
    publisher = threading.Thread(target=graph.publish_many, args=(INTS, list(range(40))))
    publisher.start()
    found: list[int] = []
    for columns in stream.columns(timeout=10):
        found += columns.values
        if len(found) == 40:
            break
    publisher.join()
    assert found == list(range(40))


@pytest.mark.parametrize("r", [TEXTS, route("col", "test", "free", schema=Schema.numpy("<f4", (None, 2)))])
def test_values_without_columns_are_refused_when_they_are_asked_for(r: Any) -> None:
    graph = Graph()
    with pytest.raises(WiringError, match="no columns"):
        graph.observe(r, print, columns=True)
    with pytest.raises(WiringError, match="no columns"):
        next(graph.stream(r).columns(timeout=0))
    assert [edge.kind for edge in graph.edges()] == ["stream"]


def test_values_that_did_not_come_or_do_not_fit_are_errors_and_never_numbers() -> None:
    far, graph = Graph(name="far"), Graph()
    tap, inlet = far.tap(TRUTHS), graph.inlet(TRUTHS)
    stream = graph.stream(TRUTHS)
    far.publish_many(TRUTHS, [True, False])
    batch = tap.drain()
    assert batch is not None
    source: dict[str, Any] = {"producer": batch.producer, "incarnation": batch.incarnation}
    inlet.push(batch.meta, None, **source)
    (columns,) = stream.columns(timeout=0)
    assert list(columns.seqs) == [1, 2]
    with pytest.raises(PayloadGone):
        _ = columns.values
    far.publish(TRUTHS, True)
    batch = tap.drain()
    assert batch is not None
    inlet.push(batch.meta, batch.payload[:-1] + b"\x07", **source)
    found = list(stream.columns(timeout=0))
    with pytest.raises(DecodeError):
        _ = found[0].values


def test_a_view_shows_columns_and_lists_as_its_principal_may_see_them() -> None:
    graph = Graph()
    reader = graph.access.principal("reader")
    graph.access.grant(reader, INTS.address, Action.META_READ)
    seen: list[Any] = []
    done = threading.Semaphore(0)

    def take(given: Any) -> None:
        seen.append(given)
        done.release()

    view = graph.view(reader)
    with view.observe(INTS, take, columns=True):
        graph.publish(INTS, 5)
        assert done.acquire(timeout=10)
    with pytest.raises(PayloadGone):
        _ = seen[0].values
    graph.access.grant(reader, INTS.address, Action.META_READ | Action.PAYLOAD_OPEN)
    with view.observe(INTS, take, batch=True):
        assert done.acquire(timeout=10)
    assert [event.value for event in seen[1]] == [5]
