"""Many values at once: arrays become events without an object for each, and all are refused where one does not fit."""

from __future__ import annotations

import tracemalloc
from array import array
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from meshfold.core import EncodeError, Graph, Route, Schema, route

FLOAT = route("o", "f", "float", schema=Schema.float())
INT = route("o", "f", "int", schema=Schema.int())
BOOL = route("o", "f", "bool", schema=Schema.bool())
TEXT = route("o", "f", "text", schema=Schema.str())
BYTES = route("o", "f", "bytes", schema=Schema.bytes())
ROWS = route("o", "f", "rows", schema=Schema.numpy("f4", (2, 2)))
PAIR_DTYPE = np.dtype([("x", "f8"), ("id", "u2")])
PAIR = route("o", "f", "pair", schema=Schema.numpy(PAIR_DTYPE))
BATCH = route("o", "f", "batch", schema=Schema.arrow(pa.schema([("v", pa.int64())])))


def published(r: Route[Any], values: Any) -> list[Any]:
    graph = Graph()
    graph.configure_retention(r, history=1000)
    seen: list[Any] = []
    graph.observe(r, lambda event: seen.append(event.value))
    numbers = graph.publish_many(r, values)
    assert numbers.first == 1
    assert numbers.last == len(seen) == graph.published(r)
    return seen


@pytest.mark.parametrize(
    ("r", "values", "expected"),
    [
        (FLOAT, np.array([1.5, -0.0, np.inf]), [1.5, -0.0, np.inf]),
        (FLOAT, np.arange(10, dtype="f8")[::3], [0.0, 3.0, 6.0, 9.0]),
        (FLOAT, np.array([1.5, 2.5], ">f8"), [1.5, 2.5]),
        (FLOAT, np.array([1.5, 2.5], "f2"), [1.5, 2.5]),
        (FLOAT, np.array([2**53, -3]), [2.0**53, -3.0]),
        (FLOAT, array("d", [1.0, 2.0]), [1.0, 2.0]),
        (FLOAT, pa.array([1.5, 2.5, 3.5], pa.float32())[1:], [2.5, 3.5]),
        (FLOAT, pa.chunked_array([[1.0], [], [2.0, 3.0]]), [1.0, 2.0, 3.0]),
        (FLOAT, (1.0, 2.0), [1.0, 2.0]),
        (FLOAT, (float(i) for i in range(3)), [0.0, 1.0, 2.0]),
        (INT, np.array([-1, 2], "i1"), [-1, 2]),
        (INT, np.array([2**63 - 1], "u8"), [2**63 - 1]),
        (INT, np.array([1, 2], ">i4"), [1, 2]),
        (INT, pa.array([1, 2, 3, 4], pa.uint16())[2:], [3, 4]),
        (BOOL, np.array([True, False]), [True, False]),
        (BOOL, pa.array([True, False, True, True])[1:], [False, True, True]),
        (TEXT, pa.array(["", "grüße", "x"])[1:], ["grüße", "x"]),
        (TEXT, pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (TEXT, np.array(["a", "bc"]), ["a", "bc"]),
        (BYTES, pa.array([b"", b"\0\xff"], pa.large_binary()), [b"", b"\0\xff"]),
    ],
)
def test_m8_arrays_of_scalars_become_events_in_order(r: Route[Any], values: Any, expected: list[Any]) -> None:
    seen = published(r, values)
    assert seen == expected
    assert [type(value) for value in seen] == [type(value) for value in expected]


def test_rows_of_an_array_with_more_axes_become_events() -> None:
    given = np.arange(40, dtype="f4").reshape(10, 2, 2)
    assert np.array_equal(np.stack(published(ROWS, given)), given)
    assert np.array_equal(np.stack(published(ROWS, given[::-2])), given[::-2])
    assert np.array_equal(np.stack(published(ROWS, list(given))), given)


def test_structured_rows_come_from_arrays_and_from_arrow_batches() -> None:
    given = np.array([(1.5, 1), (2.5, 2)], PAIR_DTYPE)
    assert published(PAIR, given) == list(given)
    assert published(PAIR, pa.record_batch({"x": [1.5, 2.5], "id": pa.array([1, 2], pa.uint8())})) == list(
        given
    )


def test_a_table_is_as_many_events_as_it_has_batches() -> None:
    table = pa.table({"v": pa.chunked_array([[1, 2], [3]])})
    assert [batch.to_pydict() for batch in published(BATCH, table)] == [{"v": [1, 2]}, {"v": [3]}]
    assert [batch.num_rows for batch in published(BATCH, [table, table.slice(0, 1)])] == [3, 1]


@pytest.mark.parametrize(
    ("r", "values"),
    [
        (FLOAT, np.zeros((2, 2))),
        (FLOAT, np.float64(1.0).reshape(())),
        (FLOAT, np.array([2**53 + 1])),
        (FLOAT, np.array([True])),
        (FLOAT, np.array(["1"])),
        (FLOAT, np.ma.array([1.0], mask=[True])),
        (FLOAT, pa.array([1.0, None])),
        (FLOAT, pa.array(["1"])),
        (FLOAT, pa.array([2**53 + 1])),
        (FLOAT, [1.0, "no"]),
        (INT, np.array([1.0])),
        (INT, np.array([2**63], "u8")),
        (INT, pa.array([2**64 - 1], pa.uint64())),
        (INT, np.array([True])),
        (INT, [1, True]),
        (BOOL, np.array([1], "u1")),
        (BOOL, np.array([2], "u1").view("?")),
        (TEXT, pa.array([b"x"])),
        (TEXT, ["a", "\ud800"]),
        (BYTES, np.array([1], "u1")),
        (ROWS, np.zeros((3, 2, 2))),
        (ROWS, np.zeros((3, 2), "f4")),
        (PAIR, pa.record_batch({"x": [1.0]})),
        (PAIR, pa.record_batch({"x": [1.0], "id": [1]})),
        (PAIR, pa.record_batch({"x": [1.0], "id": pa.array([None], pa.uint8())})),
        (BATCH, pa.table({"w": [1]})),
        (BATCH, pa.table({"v": [1.5]})),
    ],
)
def test_one_value_that_does_not_fit_refuses_all(r: Route[Any], values: Any) -> None:
    graph = Graph()
    with pytest.raises(EncodeError):
        graph.publish_many(r, values)
    assert graph.published(r) == 0
    assert graph.latest(r) is None


@pytest.mark.parametrize("name", ["numpy", "arrow", "rows"])
def test_no_python_object_is_made_for_each_event(name: str) -> None:
    count = 20_000
    numbers = np.arange(count, dtype="i4")
    values: Any = {"numpy": numbers, "arrow": pa.array(numbers), "rows": numbers.reshape(-1, 4)}[name]
    schema: Schema[Any] = Schema.numpy("i4", (4,)) if name == "rows" else Schema.int()
    r = route("o", "f", "s", schema=schema)
    graph = Graph()
    graph.publish_many(r, values)  # imports and first uses
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        tracemalloc.reset_peak()
        floor, _ = tracemalloc.get_traced_memory()
        graph.publish_many(r, values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del before
    # NumPy accounts its one widened copy here; an int object alone would add 28 bytes for each value.
    assert peak - floor < count * 8 + 65_536
