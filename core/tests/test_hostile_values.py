"""Rows HS1-HS4 and HS7: hostile values, bytes, descriptors and names. Each random row prints its seed by its id.

What passes must be a value that encodes again; what does not is one typed error with a short text, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pydantic
import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold._native import check_json
from meshfold.core import (
    DecodeError,
    EncodeError,
    Graph,
    Route,
    Schema,
    SchemaMismatch,
    WiringError,
    event_id,
    route,
)
from meshfold.core.address import escape_token
from meshfold.core.schema import VALUE_BYTES_MAX

VARIANTS = range(120)
#: What a message about foreign bytes may take in a log.
TEXT_MAX = 400


@dataclasses.dataclass
class Reading:
    """Strictly typed fields."""

    count: int
    level: float
    label: str
    tags: list[str]
    more: dict[str, float | None] = dataclasses.field(default_factory=dict)


class Model(pydantic.BaseModel):
    """The same for pydantic."""

    count: int
    level: float | None = None


class Node(msgspec.Struct):
    """As deep as one likes."""

    next: Node | None = None


READING = Schema.of(Reading)
MODEL = Schema.of(Model)
JSON = (READING, MODEL)
STRUCT = Schema.of(struct_pb2.Struct)
TIMESTAMP = Schema.of(timestamp_pb2.Timestamp)
DTYPE = np.dtype([("at", "<i8"), ("name", "<U3"), ("ok", "?")])
ARRAY = Schema.numpy(DTYPE, (2,))
BATCH = Schema.arrow(
    pa.schema([("id", pa.int64()), ("name", pa.string()), ("points", pa.list_(pa.float64()))])
)
SCALARS = (Schema.float(), Schema.int(), Schema.bool(), Schema.str(), Schema.bytes())


def samples() -> list[tuple[Schema[Any], bytes]]:
    message = struct_pb2.Struct()
    message.update({"a": [1.0, {"b": None}], "c": "text"})
    batch = pa.record_batch({"id": [1, 2, 3], "name": ["a", None, "ccc"], "points": [[0.5], [], [1.0, 2.0]]})
    array = np.array([(1, "abc", True), (2, "x", False)], DTYPE)
    return [
        (READING, READING.encode(Reading(1, 2.5, "x", ["a"], {"k": 1.5}))),
        (MODEL, MODEL.encode(Model(count=1, level=0.5))),
        (STRUCT, STRUCT.encode(message)),
        (TIMESTAMP, TIMESTAMP.encode(timestamp_pb2.Timestamp(seconds=7, nanos=9))),
        (ARRAY, ARRAY.encode(array)),
        (BATCH, BATCH.encode(batch)),
        *((schema, bytes(8)) for schema in SCALARS),
    ]


def refused(schema: Schema[Any], data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        schema.decode(data)
    assert caught.value.reason in ("schema", "decode", "size")
    assert len(str(caught.value)) < TEXT_MAX
    return str(caught.value)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A cut, a stretch, or some bytes changed."""
    way = rng.randrange(4)
    if way == 0:
        return data[: rng.randrange(len(data))]
    if way == 1:
        return data + rng.randbytes(rng.randint(1, 16))
    if way == 2:
        return rng.randbytes(rng.randrange(200))
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", VARIANTS)
@pytest.mark.parametrize(("schema", "data"), samples(), ids=lambda item: getattr(item, "name", ""))
def test_hs1_damaged_bytes_are_refused_or_are_a_value(schema: Schema[Any], data: bytes, seed: int) -> None:
    bad = damaged(data, random.Random(seed))
    try:
        value = schema.decode(bad)
    except DecodeError as error:
        assert error.reason in ("schema", "decode")
        assert len(str(error)) < TEXT_MAX
        return
    again = schema.encode(value)
    assert schema.encode(schema.decode(again)) == again
    json.dumps(schema.plain(value), allow_nan=False)


@pytest.mark.parametrize("kind", ["other kind", "other version", "other unit", "other fields"])
def test_hs1_a_route_of_another_schema_is_refused_by_name(kind: str) -> None:
    others: dict[str, Schema[Any]] = {
        "other kind": Schema.int(),
        "other version": Schema.of(float, version=2),
        "other unit": Schema.float("K"),
        "other fields": READING,
    }
    graph = Graph()
    graph.publish(route("o", "f", "s", schema=Schema.float()), 1.0)
    other: Route[Any] = route("o", "f", "s", schema=others[kind])
    for call in (
        lambda: graph.publish(other, 1),
        lambda: graph.latest(other),
        lambda: graph.observe(other, print),
        lambda: graph.stream(other),
    ):
        with pytest.raises((SchemaMismatch, EncodeError)):
            call()
    assert graph.published(route("o", "f", "s", schema=Schema.float())) == 1


def nested(levels: int) -> bytes:
    return b'{"count":1,"level":1,"label":"x","tags":' + b"[" * levels + b"]" * levels + b"}"


BAD_JSON: dict[str, bytes] = {
    "depth 10,000": nested(10_000),
    "depth 1,000,000": b"[" * 1_000_000,
    "1e400": b'{"count":1,"level":1e400,"label":"x","tags":[]}',
    "-1e400": b'{"count":1,"level":-1e400,"label":"x","tags":[]}',
    "NaN": b'{"count":1,"level":NaN,"label":"x","tags":[]}',
    "Infinity": b'{"count":1,"level":Infinity,"label":"x","tags":[]}',
    "a key twice": b'{"count":1,"count":2,"level":1,"label":"x","tags":[]}',
    "a key twice, escaped": b'{"count":1,"c\\u006funt":2,"level":1,"label":"x","tags":[]}',
    "lone high surrogate": b'{"count":1,"level":1,"label":"\\ud800","tags":[]}',
    "lone low surrogate": b'{"count":1,"level":1,"label":"\\udfff","tags":[]}',
    "surrogate bytes": b'{"count":1,"level":1,"label":"\xed\xa0\x80","tags":[]}',
    "overlong bytes": b'{"count":1,"level":1,"label":"\xc0\xaf","tags":[]}',
    "2^64": b'{"count":18446744073709551616,"level":1,"label":"x","tags":[]}',
    "-2^63-1": b'{"count":-9223372036854775809,"level":1,"label":"x","tags":[]}',
    "1,000,000 digits": b'{"count":' + b"9" * 1_000_000 + b',"level":1,"label":"x","tags":[]}',
    "bool as int": b'{"count":true,"level":1,"label":"x","tags":[]}',
    "float as int": b'{"count":1.5,"level":1,"label":"x","tags":[]}',
    "text as int": b'{"count":"1","level":1,"label":"x","tags":[]}',
    "null as float": b'{"count":1,"level":null,"label":"x","tags":[]}',
    "missing field": b'{"count":1}',
    "byte order mark": b'\xef\xbb\xbf{"count":1,"level":1,"label":"x","tags":[]}',
    "two values": b'{"count":1,"level":1,"label":"x","tags":[]}{}',
    "comment": b'{"count":1/**/,"level":1,"label":"x","tags":[]}',
    "single quotes": b"{'count':1}",
    "NUL": b'{"count":1,"level":1,"label":"\0","tags":[]}',
    "empty": b"",
    "UTF-16": '{"count":1}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_hs2_json_that_readers_differ_about_is_refused(name: str) -> None:
    refused(READING, BAD_JSON[name])


def test_hs2_depth_is_refused_where_it_is_published() -> None:
    deep = Node()
    for _ in range(2000):
        deep = Node(deep)
    graph = Graph()
    r = route("o", "f", "s", schema=Schema.of(Node))
    with pytest.raises(EncodeError):
        graph.publish(r, deep)
    assert graph.published(r) == 0


NUMBERS = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("schema", "make"),
    [
        (READING, lambda x: Reading(1, x, "x", [])),
        (READING, lambda x: Reading(1, 1.0, "x", [], {"k": x})),
        (MODEL, lambda x: Model(count=1, level=x)),
        (Schema.json(dict[str, Any], name="any"), lambda x: {"a": [x]}),
    ],
)
def test_hs2_a_nan_never_becomes_a_null(schema: Schema[Any], make: Any, number: float) -> None:
    with pytest.raises(EncodeError):
        schema.encode(make(number))


@pytest.mark.parametrize("number", NUMBERS)
def test_hs2_binary_families_carry_nan_and_infinities(number: float) -> None:
    cases: list[tuple[Schema[Any], Any]] = [
        (Schema.float(), number),
        (Schema.numpy("f8", (1,)), np.array([number])),
        (Schema.arrow(pa.schema([("v", pa.float64())])), pa.record_batch({"v": [number]})),
    ]
    for schema, value in cases:
        back = schema.decode(schema.encode(value))
        assert schema.encode(back) == schema.encode(value)
        json.dumps(schema.plain(back), allow_nan=False)


@settings(max_examples=400, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_hs2_the_strict_reading_agrees_with_a_plain_one(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False).encode()
    except ValueError:
        return
    fits = all(-(2**63) <= number < 2**64 for number in integers(value))
    if fits:
        check_json(text)
    else:
        with pytest.raises(ValueError, match="64 bits"):
            check_json(text)


def integers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from integers(item)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='{}[]",:0123456789eE+-.\\utrfalsn \n\x00é'))
def test_hs2_what_the_strict_reading_takes_every_reader_takes(text: str) -> None:
    try:
        check_json(text.encode())
    except ValueError:
        return
    json.loads(text)
    msgspec.json.decode(text.encode())


@pytest.mark.parametrize("seed", VARIANTS)
def test_hs3_integers_beyond_their_type_are_refused(seed: int) -> None:
    rng = random.Random(seed)
    beyond = rng.choice((1, -1)) * (2 ** rng.randint(64, 4000) + rng.randrange(1000))
    graph = Graph()
    for schema, value in (
        (Schema.int(), beyond),
        (Schema.int(), rng.choice((True, 1.0, "1", None, b"1"))),
        (Schema.float(), 2**53 + 1 + rng.randrange(2**40)),
        (READING, Reading(beyond, 1.0, "x", [])),
        (READING, Reading(True, 1.0, "x", [])),
    ):
        r: Route[Any] = route("o", "f", schema.name, schema=schema)
        with pytest.raises(EncodeError):
            graph.publish(r, value)
        assert graph.published(r) == 0


@pytest.mark.parametrize("number", [-1, -(2**63), 2**64, 2**4000])
def test_hs3_a_number_no_event_can_have_is_refused_and_uses_none(number: int) -> None:
    graph = Graph()
    r = route("o", "f", "s", schema=Schema.float())
    inlet = graph.inlet(r)
    with pytest.raises(WiringError, match="no number of an event"):
        event_id(b"producer", b"incarnat", r.tag, number)
    for call in (
        lambda: inlet.expect(b"producer", b"incarnat", number),
        lambda: graph.publish(r, 1.0, epoch=number),
        lambda: graph.publish(r, 1.0, logical_time=number),
    ):
        with pytest.raises(OverflowError):
            call()
    assert (graph.published(r), inlet.counters(), graph.latest(r)) == (0, [], None)


@pytest.mark.parametrize("index", VARIANTS)
def test_hs4_nothing_that_runs_code_is_decoded(index: int) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code ran",))

    texts = (
        pickle.dumps(Evil(), protocol=index % 6),
        b"!!python/object/apply:os.system ['true']",
        b'{"py/object": "os.system", "count": 1, "level": 1, "label": "x", "tags": []}'[: -1 - index % 5],
        b'{"__reduce__": ["os.system", ["true"]]}',
    )
    data = texts[index % len(texts)]
    for schema in (*JSON, TIMESTAMP, ARRAY, BATCH, Schema.float(), Schema.int(), Schema.bool()):
        if schema is TIMESTAMP and index % len(texts):
            continue
        with pytest.raises(DecodeError):
            schema.decode(data)


def test_hs4_there_is_no_codec_that_could() -> None:
    for kind in ("pickle", "yaml", "marshal", "dill", "any", "object"):
        with pytest.raises(SchemaMismatch):
            Schema.from_descriptor({"kind": kind, "name": "x", "version": 1})
    with pytest.raises(SchemaMismatch):
        Schema.numpy("O")
    with pytest.raises(SchemaMismatch):
        Schema.arrow(pa.schema([("a", pa.uuid() if hasattr(pa, "uuid") else pa.null())]))


@pytest.mark.parametrize("seed", VARIANTS)
def test_hs1_hostile_descriptors_are_refused_or_make_a_schema(seed: int) -> None:
    rng = random.Random(seed)
    good = [schema.descriptor() for schema, _ in samples()]
    junk: list[Any] = [
        None,
        True,
        -1,
        2**70,
        1e400,
        "",
        "x" * 300,
        [],
        {},
        [[]],
        {"a": []},
        "O",
        ">f8",
        "object",
    ]

    def change(node: Any) -> Any:
        if rng.random() < 0.15:
            return rng.choice(junk)
        if isinstance(node, dict):
            return {key: change(item) for key, item in node.items() if rng.random() > 0.03}
        if isinstance(node, list):
            return [change(item) for item in node]
        return node

    for descriptor in good:
        bad = change(descriptor)
        try:
            schema = Schema.from_descriptor(bad)
        except SchemaMismatch as error:
            assert len(str(error)) < TEXT_MAX
            continue
        assert schema.descriptor() == bad or "shape" in bad or "unit" in bad


def test_hs1_values_above_the_bound_are_refused_on_both_ends() -> None:
    text = Schema.json(str, name="text")
    with pytest.raises(EncodeError, match="split it"):
        text.encode("x" * VALUE_BYTES_MAX)
    assert "above" in refused(text, b'"' + b"x" * VALUE_BYTES_MAX + b'"')


def arrow_message(compression: str) -> bytes:
    batch = pa.record_batch({"id": [0] * 100_000, "name": ["a"] * 100_000, "points": [[0.0]] * 100_000})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    next(reader)
    return bytes(reader.read_next_message().serialize().to_pybytes())


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_hs1_a_compressed_arrow_body_is_refused_before_it_inflates(compression: str) -> None:
    assert "compressed" in refused(BATCH, arrow_message(compression))


def test_hs1_arrow_messages_of_other_kinds_are_refused() -> None:
    schema = pa.schema([("id", pa.int64())])
    assert "no record batch" in refused(BATCH, schema.serialize().to_pybytes())
    refused(BATCH, pa.record_batch({"id": [1]}).serialize().to_pybytes())


@pytest.mark.parametrize(
    "data", [b"\x1a\x03abc", b"\xff" * 12, b"\x08" + b"\x80" * 12, b"\x0a\xff\xff\xff\xff\x0f"]
)
def test_hs1_protobuf_with_foreign_fields_is_refused(data: bytes) -> None:
    refused(TIMESTAMP, data)


def test_hs2_protobuf_depth_is_bounded() -> None:
    data = b""
    for _ in range(200):
        # ListValue { values: Value { list_value: ... } }
        inner = b"\x32" + _varint(len(data)) + data
        data = b"\x0a" + _varint(len(inner)) + inner
    refused(Schema.of(struct_pb2.ListValue), data)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@pytest.mark.parametrize(
    "token", ["$JS", "$SYS", "$KV", "$O", "raft", "RAFT", "_MF", "_mf", "_INBOX", "_inbox"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_hs7_reserved_names_are_no_route(token: str, place: int) -> None:
    tokens = ["o", "f", "s"]
    tokens[place] = token
    with pytest.raises(WiringError, match="reserved"):
        route(*tokens, schema=Schema.float())
    escaped = [escape_token(token) for token in tokens]
    for text in ("/".join(escaped), f"read.logical.{'.'.join(escaped)}.meta"):
        with pytest.raises(WiringError, match="reserved"):
            Route.parse(text, Schema.float())


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.list_(pa.float64()), [[0.5], [1.0, 2.0, 3.0, 4.0]]),
        (pa.large_list(pa.float64()), [[0.5], [1.0, 2.0, 3.0, 4.0]]),
        (pa.string(), ["a", "bcde"]),
        (pa.large_string(), ["a", "bcde"]),
        (pa.binary(), [b"a", b"bcde"]),
        (pa.large_binary(), [b"a", b"bcde"]),
    ],
    ids=str,
)
def test_hs1_offsets_of_a_column_without_rows_are_refused_before_a_library_follows_them(
    type_: pa.DataType, values: list[Any]
) -> None:
    """Flattening such a list ends the whole process; such a text is written as a body of negative length."""
    schema = Schema.arrow(pa.schema([("v", type_)]))
    message = schema.encode(pa.record_batch({"v": pa.array(values, type_)}))
    head = 8 + int.from_bytes(message[4:8], "little")
    # Every length in the header becomes 0; the body keeps offsets, the first of them beyond the end.
    header = (
        message[:head]
        .replace((2).to_bytes(8, "little"), bytes(8))
        .replace((5).to_bytes(8, "little"), bytes(8))
    )
    assert "without rows" in refused(schema, header + (7).to_bytes(4, "little") + message[head + 4 :])


def test_what_protobuf_cannot_say_in_json_is_shown_as_text() -> None:
    message = struct_pb2.Struct()
    message.fields["x"].number_value = math.nan
    assert "nan" in json.dumps(STRUCT.plain(message), allow_nan=False)
