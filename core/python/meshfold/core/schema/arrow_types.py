"""Arrow types as plain JSON and back: the part of an Arrow schema that is a route's identity.

Types whose bytes depend on more than the batch - dictionaries, unions, extensions - are not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from meshfold.core.errors import SchemaMismatch
from meshfold.core.schema.codec import missing

try:
    import pyarrow as pa
except ImportError:
    raise missing("pyarrow", "an arrow schema") from None

__all__ = ("field_document", "field_of")

DEPTH_MAX: Final = 32
_PLAIN: Final[dict[str, Callable[[], Any]]] = {
    "bool": pa.bool_,
    "int8": pa.int8,
    "int16": pa.int16,
    "int32": pa.int32,
    "int64": pa.int64,
    "uint8": pa.uint8,
    "uint16": pa.uint16,
    "uint32": pa.uint32,
    "uint64": pa.uint64,
    "halffloat": pa.float16,
    "float": pa.float32,
    "double": pa.float64,
    "string": pa.string,
    "large_string": pa.large_string,
    "binary": pa.binary,
    "large_binary": pa.large_binary,
    "date32[day]": pa.date32,
    "date64[ms]": pa.date64,
}
_LISTS: Final = {"list": pa.list_, "large_list": pa.large_list}


def field_document(field: Any, depth: int = 0) -> dict[str, Any]:
    """Return a field as plain JSON.

    :raises SchemaMismatch: for a type that is not taken
    """
    return {"name": field.name, "type": _document(field.type, depth), "nullable": field.nullable}


def _document(type_: Any, depth: int) -> Any:
    kinds = pa.types
    text = str(type_)
    if depth > DEPTH_MAX:
        raise _refused(text, f"nested deeper than {DEPTH_MAX}")
    if text in _PLAIN:
        return text
    if kinds.is_timestamp(type_):
        return {"timestamp": type_.unit, "zone": type_.tz}
    if kinds.is_time(type_):
        return {"time": type_.unit}
    if kinds.is_duration(type_):
        return {"duration": type_.unit}
    if kinds.is_decimal128(type_) or kinds.is_decimal256(type_):
        return {"decimal": type_.bit_width, "precision": type_.precision, "scale": type_.scale}
    if kinds.is_fixed_size_binary(type_) and type_.byte_width > 0:
        return {"bytes": type_.byte_width}
    if kinds.is_fixed_size_list(type_) and type_.list_size > 0:
        return {"list": field_document(type_.value_field, depth + 1), "size": type_.list_size}
    if kinds.is_list(type_) or kinds.is_large_list(type_):
        key = "list" if kinds.is_list(type_) else "large_list"
        return {key: field_document(type_.value_field, depth + 1)}
    if kinds.is_struct(type_) and type_.num_fields > 0:
        return {"struct": [field_document(type_.field(i), depth + 1) for i in range(type_.num_fields)]}
    raise _refused(text, "its bytes depend on more than the batch")


def _refused(text: str, why: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the Arrow type {text[:60]} is not taken: {why}",
        fix="cast it to plain columns",
        expected="numbers, text, times, lists and structs",
        found=text[:60],
    )


def field_of(document: dict[str, Any]) -> Any:
    """Return the field of `field_document`; KeyError, TypeError or ValueError where it is none."""
    name, nullable = document["name"], document["nullable"]
    if not isinstance(name, str) or not isinstance(nullable, bool):
        raise TypeError("a field needs a name and nullable")
    return pa.field(name, _type(document["type"]), nullable=nullable)


def _type(node: Any) -> Any:
    if isinstance(node, str):
        return _PLAIN[node]()
    if "timestamp" in node:
        return pa.timestamp(node["timestamp"], node["zone"])
    if "time" in node:
        return (pa.time32 if node["time"] in ("s", "ms") else pa.time64)(node["time"])
    if "duration" in node:
        return pa.duration(node["duration"])
    if "decimal" in node:
        make = pa.decimal128 if node["decimal"] == 128 else pa.decimal256
        return make(node["precision"], node["scale"])
    if "bytes" in node:
        return pa.binary(node["bytes"])
    if "size" in node:
        return pa.list_(field_of(node["list"]), node["size"])
    for key, make in _LISTS.items():
        if key in node:
            return make(field_of(node[key]))
    return pa.struct([field_of(row) for row in node["struct"]])
