"""What is fuzzed of the local graph: schema decoders, descriptors, the manifest loader, the batch decoder.

Each target takes bytes; it may refuse them by a typed error, and whatever it accepts has to hold together when it is written
again. Anything else that is raised is a find. tools/fuzz.py runs them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
from google.protobuf import struct_pb2
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import DecodeError, MeshfoldError
from meshfold.core.manifest import read_manifest

__all__ = ("CORE_TARGETS",)

#: name, honest inputs, and what says in one word how an input was refused
Parts = tuple[str, tuple[bytes, ...], Callable[[bytes], str]]


@dataclasses.dataclass
class Reading:
    """Fields of every JSON kind."""

    count: int
    level: float
    label: str
    tags: list[str]
    more: dict[str, float | None] = dataclasses.field(default_factory=dict)


class Model(pydantic.BaseModel):
    """A pydantic model."""

    count: int
    level: float | None = None


def _word(error: MeshfoldError) -> str:
    text = str(error)
    return f"{error.code}:{''.join(c for c in text if c.isalpha() or c == ' ')[:60]}"


def _decoder(name: str, schema: Schema[Any], values: list[Any]) -> Parts:
    def run(data: bytes) -> str:
        try:
            value = schema.decode(data)
        except DecodeError as error:
            if len(str(error)) > 500:
                raise AssertionError("an error as long as its input") from None
            return _word(error)
        again = schema.encode(value)
        if schema.encode(schema.decode(again)) != again:
            raise AssertionError("a value that is written differently each time")
        json.dumps(schema.plain(value), allow_nan=False)
        return ""

    return name, tuple(schema.encode(value) for value in values), run


def json_values() -> Parts:
    """JSON of a dataclass."""
    return _decoder(
        "json values", Schema.of(Reading), [Reading(1, 2.5, "é", ["a"], {"k": None}), Reading(0, 0.0, "", [])]
    )


def model_values() -> Parts:
    """JSON of a pydantic model."""
    return _decoder("pydantic values", Schema.of(Model), [Model(count=1, level=0.5), Model(count=-1)])


def protobuf_values() -> Parts:
    """A recursive message."""
    message = struct_pb2.Struct()
    message.update({"a": [1.0, {"b": None}, True], "c": "text"})
    return _decoder("protobuf values", Schema.of(struct_pb2.Struct), [message])


def numpy_values() -> Parts:
    """A structured array with text and booleans."""
    dtype = np.dtype([("at", "<i8"), ("name", "<U3"), ("ok", "?")])
    array = np.array([(1, "abc", True), (2, "x", False)], dtype)
    return _decoder("numpy values", Schema.numpy(dtype, (2,)), [array])


def arrow_values() -> Parts:
    """Record batches with text and lists."""
    batch = pa.record_batch({"id": [1, 2, 3], "name": ["a", None, "ccc"], "points": [[0.5], [], [1.0, 2.0]]})
    schema = Schema.arrow(batch.schema)
    return _decoder("arrow values", schema, [batch, batch.slice(0, 1), batch.slice(0, 0)])


def descriptors() -> Parts:
    """Schema descriptors of all families."""
    schemas: list[Schema[Any]] = [
        Schema.float("Celsius"),
        Schema.of(Reading),
        Schema.of(struct_pb2.Struct),
        Schema.numpy([("a", "f4", (2,)), ("b", "<U2")], (None, 3)),
        Schema.arrow(pa.schema([("a", pa.list_(pa.int64())), ("t", pa.timestamp("us", "UTC"))])),
    ]

    def run(data: bytes) -> str:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return "no JSON"
        try:
            schema = Schema.from_descriptor(document)
        except MeshfoldError as error:
            return _word(error)
        if Schema.from_descriptor(schema.descriptor()).id != schema.id:
            raise AssertionError("a descriptor that makes another schema")
        return ""

    return "schema descriptors", tuple(json.dumps(s.descriptor()).encode() for s in schemas), run


def manifests() -> Parts:
    """The manifest loader, wiring included."""
    celsius = route("k", "t", "celsius", schema=Schema.float())
    doubled = route("k", "t", "doubled", schema=Schema.float())
    graph = Graph(name="k")
    graph.pipe(celsius).distinct().into(doubled)
    graph.connect(doubled, route("k", "t", "copy", schema=Schema.float()))
    graph.configure_retention(celsius, history=3)

    def run(data: bytes) -> str:
        try:
            made = Graph.load(data)
        except MeshfoldError as error:
            return _word(error)
        if read_manifest(made.manifest().encode()).encode() != made.manifest().encode():
            raise AssertionError("a manifest that reads back differently")
        return ""

    return "manifests", (graph.manifest().encode(),), run


def batches() -> Parts:
    """Batches of a remote producer, pushed into a graph."""
    source = Graph(name="s", producer=b"producer", incarnation=b"incarnat")
    r = route("k", "t", "celsius", schema=Schema.float())
    tap = source.tap(r)
    parent = source.publish(r, 1.0, key="k", correlation="c", time=5)
    source.publish(r, 2.0, parents=[parent])
    batch = tap.drain()
    if batch is None:
        raise AssertionError("nothing to drain")
    seed = len(batch.meta).to_bytes(2, "big") + batch.meta + batch.payload

    def run(data: bytes) -> str:
        size = int.from_bytes(data[:2], "big")
        graph = Graph(name="r")
        try:
            graph.inlet(r).push(
                data[2 : 2 + size], data[2 + size :], producer=b"producer", incarnation=b"incarnat"
            )
        except DecodeError as error:
            if graph.latest(r) is not None:
                raise AssertionError("a refused batch left an event") from None
            return _word(error)
        return ""

    return "batches", (seed,), run


CORE_TARGETS: dict[str, Callable[[], Parts]] = {
    "arrow-values": arrow_values,
    "batches": batches,
    "descriptors": descriptors,
    "json-values": json_values,
    "manifests": manifests,
    "model-values": model_values,
    "numpy-values": numpy_values,
    "protobuf-values": protobuf_values,
}
