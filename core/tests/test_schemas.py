"""Every family of schemas: values come back, identities agree, wrong values are refused before they use a number."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pydantic
import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message import Message
from meshfold.core import EncodeError, Graph, Schema, SchemaMismatch, event_document, route

IMU_DTYPE = np.dtype([("t", "<i8"), ("accel", "<f4", (3,)), ("ok", "?")])
IMU = Schema.numpy(IMU_DTYPE, name="imu")
SCAN = Schema.numpy("f4", (2, 3))
COLUMNS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("points", pa.list_(pa.float64())),
        pa.field("box", pa.struct([pa.field("w", pa.int32()), pa.field("h", pa.int32())])),
    ]
)
BATCH = Schema.arrow(COLUMNS)


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: float
    label: str | None = None


class Packed(msgspec.Struct):
    """A msgspec struct."""

    title: str


class Model(pydantic.BaseModel):
    """A pydantic model."""

    level: int


def struct_message() -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update({"b": 1.0, "a": [True, None, "x"], "c": {"d": "e"}})
    return message


def rows(count: int = 3) -> pa.RecordBatch:
    fields: list[dict[str, Any]] = [
        {"id": i, "name": None if i % 2 else f"n{i}", "at": i, "points": [0.5] * i, "box": {"w": i, "h": -i}}
        for i in range(count)
    ]
    return pa.RecordBatch.from_pylist(fields, schema=COLUMNS)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray | np.generic):
        return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())
    if isinstance(left, pa.RecordBatch):
        return bool(left.equals(right))
    return bool(left == right)


VALUES: list[tuple[Schema[Any], Any]] = [
    (Schema.of(Point), Point(1.5)),
    (Schema.of(Packed), Packed("x")),
    (Schema.of(Model), Model(level=3)),
    (Schema.of(timestamp_pb2.Timestamp), timestamp_pb2.Timestamp(seconds=7, nanos=9)),
    (Schema.of(struct_pb2.Struct), struct_message()),
    (SCAN, np.arange(6, dtype="f4").reshape(2, 3)),
    (Schema.numpy("<U4", (2,)), np.array(["añ", "😀"], "U4")),
    (Schema.numpy("M8[ns]", (1,)), np.array(["2026-01-02"], "M8[ns]")),
    (Schema.numpy("f8"), np.float64("nan")),
    (Schema.numpy("i2", (None, 2)), np.arange(8, dtype="i2").reshape(4, 2)),
    (IMU, np.zeros((), IMU_DTYPE)[()]),
    (BATCH, rows()),
]


@pytest.mark.parametrize(("schema", "value"), VALUES, ids=lambda item: getattr(item, "name", ""))
def test_m6_values_of_every_family_come_back(schema: Schema[Any], value: Any) -> None:
    graph = Graph()
    r = route("o", "f", "s", schema=schema)
    graph.publish(r, value)
    latest = graph.latest(r)
    assert latest is not None
    assert same(latest.value, value)
    assert latest.payload == schema.encode(value)
    msgspec.json.encode(event_document(latest))


@pytest.mark.parametrize(("schema", "value"), VALUES, ids=lambda item: getattr(item, "name", ""))
def test_m6_a_descriptor_makes_a_schema_of_the_same_identity(schema: Schema[Any], value: Any) -> None:
    descriptor = msgspec.json.decode(msgspec.json.encode(schema.descriptor()))
    again = Schema.from_descriptor(descriptor)
    assert again.id == schema.id
    data = schema.encode(value)
    there = again.decode(data)
    if schema.kind != "json":
        assert type(there).__name__ == type(value).__name__
        assert again.encode(there) == data
    else:
        assert there == schema.plain(value)


def test_every_well_known_message_can_be_rebuilt_from_its_descriptor() -> None:
    for kind in (descriptor_pb2.FileDescriptorProto, struct_pb2.Value, descriptor_pb2.FieldOptions):
        schema: Schema[Any] = Schema.protobuf(kind)
        assert Schema.from_descriptor(schema.descriptor()).id == schema.id


def test_identities_differ_where_shapes_do() -> None:
    schemas = [schema for schema, _ in VALUES]
    schemas += [
        Schema.numpy("f4", (3, 2)),
        Schema.numpy("f8", (2, 3)),
        Schema.numpy("f4", (2, 3), version=2),
        Schema.arrow(pa.schema([("id", pa.int64())])),
        Schema.arrow(pa.schema([pa.field("id", pa.int64(), nullable=False)])),
        Schema.of(struct_pb2.Value),
        Schema.of(Point, version=2),
    ]
    assert len({schema.id for schema in schemas}) == len(schemas)


def test_metadata_and_docstrings_do_not_change_an_identity() -> None:
    plain = pa.schema([("id", pa.int64())])
    assert Schema.arrow(plain).id == Schema.arrow(plain.with_metadata({"a": "b"})).id
    documented = dataclasses.make_dataclass("Point", [("x", float), ("label", "str | None", None)])
    documented.__doc__ = "Other words."
    assert Schema.of(documented).id == Schema.of(Point).id


WRONG: list[tuple[Schema[Any], Any]] = [
    (SCAN, np.zeros((2, 3))),
    (SCAN, np.zeros((3, 2), "f4")),
    (SCAN, np.zeros((2, 3), ">f4")),
    (SCAN, np.ma.zeros((2, 3), "f4")),
    (SCAN, [[0.0] * 3] * 2),
    (Schema.numpy("?", (1,)), np.array([2], "u1").view("?")),
    (IMU, np.zeros((), [("t", "<i8")])[()]),
    (BATCH, pa.record_batch({"id": [1]})),
    (BATCH, {"id": 1}),
    (
        Schema.arrow(pa.schema([pa.field("id", pa.int64(), nullable=False)])),
        pa.record_batch({"id": [1, None]}),
    ),
    (Schema.arrow(pa.schema([("id", pa.int64())])), pa.record_batch({"id": pa.array([1], pa.int32())})),
    (Schema.of(timestamp_pb2.Timestamp), struct_pb2.Struct()),
    (Schema.of(timestamp_pb2.Timestamp), b"\x08\x07"),
    (Schema.of(Point), Point(float("nan"))),
    (Schema.of(Point), Point(1.0, "\ud800")),
    (Schema.of(Model), Model.model_construct(level="no")),
]


@pytest.mark.parametrize(("schema", "value"), WRONG, ids=lambda item: getattr(item, "name", ""))
def test_a_wrong_value_is_refused_and_nothing_is_stored(schema: Schema[Any], value: Any) -> None:
    graph = Graph()
    r = route("o", "f", "s", schema=schema)
    with pytest.raises(EncodeError) as caught:
        graph.publish(r, value)
    assert caught.value.code == "core.encode"
    assert caught.value.route == r.text
    assert graph.published(r) == 0
    assert graph.latest(r) is None


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Schema.numpy("O"), "objects"),
        (lambda: Schema.numpy(">f8"), "big-endian"),
        (lambda: Schema.numpy([("a", "u1"), ("b", ">u2")]), "big-endian"),
        (lambda: Schema.numpy(np.dtype([("a", "u1"), ("b", "f8")], align=True)), "padding"),
        (lambda: Schema.numpy(np.longdouble), "long doubles"),
        (lambda: Schema.numpy("f8", (0,)), "no shape"),
        (lambda: Schema.numpy("f8", (1, None)), "no shape"),
        (lambda: Schema.numpy("f8", (-1,)), "no shape"),
        (lambda: Schema.numpy("f8", (True,)), "no shape"),
        (lambda: Schema.numpy("f8", (2**30,)), "bytes"),
        (lambda: Schema.numpy("no such type"), "no dtype"),
        (lambda: Schema.numpy("S"), "fixed number"),
        (lambda: Schema.arrow(pa.schema([])), "columns"),
        (lambda: Schema.arrow(pa.schema([("a", pa.null())])), "not taken"),
        (lambda: Schema.arrow(pa.schema([("a", pa.dictionary(pa.int8(), pa.string()))])), "not taken"),
        (lambda: Schema.arrow(pa.schema([("a", pa.int8()), ("a", pa.int8())])), "name of its own"),
        (lambda: Schema.arrow("nothing"), "no Arrow schema"),
        (lambda: Schema.protobuf(Message), "no protobuf"),
        (lambda: Schema.protobuf(int), "no protobuf"),  # type: ignore[type-var]
        (lambda: Schema.of(object), "no JSON shape"),
        (lambda: Schema.of(complex), "no JSON shape"),
        (lambda: Schema.of(float, version=0), "version"),
    ],
)
def test_a_shape_without_fixed_bytes_is_refused_when_it_is_declared(make: Any, word: str) -> None:
    with pytest.raises(SchemaMismatch, match=word):
        make()


def test_arrow_takes_other_libraries_by_the_capsule_interface() -> None:
    """Nothing but the two dunder methods is looked at."""

    class Foreign:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __arrow_c_array__(self, requested: Any = None) -> Any:
            return self._inner.__arrow_c_array__(requested)

    class ForeignStream:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __arrow_c_stream__(self, requested: Any = None) -> Any:
            return self._inner.__arrow_c_stream__(requested)

    class ForeignSchema:
        def __arrow_c_schema__(self) -> Any:
            return pa.schema([("v", pa.string())]).__arrow_c_schema__()

    schema = Schema.arrow(ForeignSchema())
    batch = pa.record_batch({"v": ["a", "b"]})
    assert schema.decode(schema.encode(Foreign(batch))).equals(batch)
    table = pa.table({"v": pa.chunked_array([["a"], ["b"]])})
    assert schema.decode(schema.encode(ForeignStream(table))).equals(batch)
    views = pa.record_batch({"v": batch.column(0).cast(pa.string_view())})
    assert schema.decode(schema.encode(Foreign(views))).equals(batch)

    graph = Graph()
    numbers = route("o", "f", "n", schema=Schema.float())
    assert graph.publish_many(numbers, Foreign(pa.array([1.0, 2.5]))).last == 2
    assert graph.publish_many(numbers, ForeignStream(pa.chunked_array([[1.0], [2.5]]))).last == 4


def test_decoded_arrays_are_views_nobody_can_write() -> None:
    value = SCAN.decode(SCAN.encode(np.zeros((2, 3), "f4")))
    with pytest.raises(ValueError, match="read-only"):
        value[0, 0] = 1


def test_a_strided_array_travels_in_c_order() -> None:
    wide = np.arange(24, dtype="f4").reshape(4, 6)
    assert same(SCAN.decode(SCAN.encode(wide[::2, ::2])), np.ascontiguousarray(wide[::2, ::2]))
    assert same(SCAN.decode(SCAN.encode(wide[:3, :2].T)), np.ascontiguousarray(wide[:3, :2].T))


def test_importing_the_graph_imports_no_optional_library() -> None:
    code = (
        "import sys, meshfold.core; "
        "print(sorted({'numpy','pyarrow','pydantic','google.protobuf'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("library", ["numpy", "pyarrow", "google.protobuf"])
def test_a_family_without_its_library_says_what_to_install(library: str) -> None:
    code = f"""
import sys
sys.modules[{library!r}] = None
from meshfold.core import Schema, EncodeError, SchemaMismatch
makes = {{"numpy": lambda: Schema.numpy("f8"), "pyarrow": lambda: Schema.arrow(None),
         "google.protobuf": lambda: Schema.protobuf(int)}}
try:
    makes[{library!r}]()
except SchemaMismatch as error:
    print(error)
kinds = {{"numpy": "numpy", "pyarrow": "arrow", "google.protobuf": "protobuf"}}
seen = Schema.from_descriptor({{"kind": kinds[{library!r}], "name": "n", "version": 1, "shape": {{"a": 1}}}})
try:
    seen.encode(1)
except EncodeError as error:
    print(seen.name, error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "install meshfold[" in done.stdout
    assert "n core.encode" in done.stdout
