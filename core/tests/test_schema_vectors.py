"""Identities and bytes that must never change: another language, or last year's program, holds us to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from meshfold.core import Schema


@dataclasses.dataclass
class Reading:
    """As in docs/reference/schemas.md."""

    celsius: float
    label: str = ""


VECTORS: list[tuple[Schema[Any], str, Any, str | None]] = [
    (Schema.bytes(), "8293e30d912f3dfe", b"\x00\xff", "00ff"),
    (Schema.float(), "a020ea9c1373f054", -0.0, "0000000000000080"),
    (Schema.float("Celsius"), "d3bdfc52d7a514dc", 871.5, "00000000003c8b40"),
    (Schema.int(), "b6f170103c941a82", -(2**63), "0000000000000080"),
    (Schema.bool(), "822443bca770de6a", True, "01"),
    (Schema.str(), "56c21cddbf30be9d", "grüße", "6772c3bcc39f65"),
    (
        Schema.of(Reading),
        "3f3eaa5f1bdd7f8e",
        Reading(871.5, "ok"),
        "7b2263656c73697573223a3837312e352c226c6162656c223a226f6b227d",
    ),
    (
        Schema.of(Reading, version=2),
        "e102b5ef663b2893",
        Reading(0.1),
        "7b2263656c73697573223a302e312c226c6162656c223a22227d",
    ),
    (Schema.of(Timestamp), "badafe3e65bf19c7", Timestamp(seconds=7, nanos=9), "08071009"),
    (
        Schema.numpy("f4", (2, 2)),
        "8221e19ec3fcbd28",
        np.array([[1, 2], [3, 4]], "f4"),
        "0000803f000000400000404000008040",
    ),
    (Schema.numpy("i2", (None,)), "e2af611ee575fe8a", np.array([1, -1], "i2"), "0100ffff"),
    (
        Schema.numpy([("t", "i8"), ("ok", "?")]),
        "27bcec821a84b5b1",
        np.array((7, True), [("t", "i8"), ("ok", "?")])[()],
        "070000000000000001",
    ),
    (Schema.arrow(pa.schema([("id", pa.int64()), ("name", pa.string())])), "91929d67728779a1", None, None),
]


@pytest.mark.parametrize(("schema", "identity", "value", "data"), VECTORS)
def test_bytes_and_identities_are_these(
    schema: Schema[Any], identity: str, value: Any, data: str | None
) -> None:
    assert schema.id.hex() == identity
    if data is not None:
        assert schema.encode(value).hex() == data
        assert schema.encode(schema.decode(bytes.fromhex(data))).hex() == data
