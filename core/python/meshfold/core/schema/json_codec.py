"""JSON of dataclasses, msgspec structs and pydantic models (HS2, HS3).

Invariant: both ends hold the bytes to the same strict reading before a library sees them (`check_json`, native): UTF-8,
one key once, depth at most 128, integers within 64 bits, finite numbers. What JSON would silently change - a NaN that
becomes null - is refused where it is published.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any, cast

import msgspec
from meshfold._native import check_json
from meshfold.core.errors import SchemaMismatch
from meshfold.core.schema.codec import Codec, Rows, finite, said

__all__ = ("JsonCodec", "json_codec", "untyped_json")


class JsonCodec:
    """A JSON family member: an encoder, a decoder and the JSON Schema of the type."""

    def __init__(
        self,
        of: type | None,
        shape: dict[str, Any],
        write: Callable[[Any], bytes],
        read: Callable[[bytes], Any],
        builtins: Callable[[Any], Any],
    ) -> None:
        self.shape = shape
        self._of = of
        self._write = write
        self._read = read
        self._builtins = builtins
        # A shape from elsewhere is not read: any null may hide a number.
        self._null_hides = of is None or _null_may_hide_a_number(shape)

    def encode(self, value: Any) -> bytes:
        """Return compact JSON that the decoder takes back."""
        if self._of is not None and not isinstance(value, self._of):
            raise TypeError(f"expected {self._of.__name__}, got {type(value).__name__}")
        if self._null_hides:
            _refuse_nonfinite(self._builtins(value))
        data = self._write(value)
        check_json(data)
        # A dataclass takes anything in its fields: what a reader could not decode must not leave.
        self._read(data)
        return data

    def decode(self, data: bytes) -> Any:
        """Return the value; the JSON is held to the strict reading first."""
        check_json(data)
        return self._read(data)

    def rows(self, values: Any) -> Rows | None:
        """Structured values are taken one by one."""
        return None

    def plain(self, value: Any) -> Any:
        """Return the value's fields."""
        return finite(self._builtins(value))


def json_codec(of: Any) -> Codec:
    """Make the codec of a type; pydantic models by pydantic, the rest by msgspec.

    :raises SchemaMismatch: if the type has no JSON shape
    """
    if hasattr(of, "model_validate_json"):
        return JsonCodec(
            of,
            _without_prose(of.model_json_schema()),
            lambda value: cast("bytes", value.model_dump_json(warnings="error").encode()),
            lambda data: of.model_validate_json(data, strict=True),
            lambda value: value.model_dump(mode="python", warnings=False),
        )
    try:
        decoder = msgspec.json.Decoder(of)
        shape = _without_prose(msgspec.json.schema(of))
    except (TypeError, msgspec.MsgspecError) as error:
        raise SchemaMismatch(
            f"{of!r} has no JSON shape: {said(error)}",
            fix="use a dataclass, a msgspec.Struct or a pydantic model",
            expected="a structured type",
            found=repr(of),
        ) from None
    # Of list[int] and the like, isinstance cannot ask; the decoder holds their values.
    known = of if type(of) is not types.GenericAlias and isinstance(of, type) else None
    return JsonCodec(known, shape, msgspec.json.Encoder().encode, decoder.decode, msgspec.to_builtins)


def untyped_json(shape: dict[str, Any]) -> Codec:
    """The codec of a shape whose Python type is not here: values are dicts and lists."""
    return JsonCodec(None, shape, msgspec.json.encode, msgspec.json.decode, msgspec.to_builtins)


def _null_may_hide_a_number(shape: Any) -> bool:
    """Whether a NaN, which the libraries write as null, could pass as a valid null of this JSON Schema."""
    if isinstance(shape, list):
        return any(_null_may_hide_a_number(item) for item in shape)
    if not isinstance(shape, dict):
        return False
    kinds = {item.get("type") for item in shape.get("anyOf", ()) if isinstance(item, dict)}
    if isinstance(shape.get("type"), list):
        kinds |= set(shape["type"])
    if "null" in kinds and "number" in kinds:
        return True
    # No word about the type, of the value or of its parts: anything, a float and a null included.
    anything = not shape.keys() - {"default"}
    loose = shape.get("type") == "object" and not shape.keys() & {"properties", "additionalProperties"}
    loose = loose or (shape.get("type") == "array" and not shape.keys() & {"items", "prefixItems"})
    return (
        anything
        or loose
        or any(
            _null_may_hide_a_number(item)
            for key, item in shape.items()
            if key not in ("default", "enum", "const")
        )
    )


def _refuse_nonfinite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has no NaN and no infinity")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_nonfinite(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _refuse_nonfinite(item)


def _without_prose(shape: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema without titles and descriptions: a docstring does not change what bytes mean."""

    def strip(node: Any, names: bool = False) -> Any:
        if isinstance(node, dict):
            # Under "properties" the keys are the user's own: a field may be called title.
            kept = node.items() if names else ((k, v) for k, v in node.items() if k not in _PROSE)
            return {key: strip(item, key in _NAMED and not names) for key, item in kept}
        if isinstance(node, list):
            return [strip(item) for item in node]
        return node

    return cast("dict[str, Any]", strip(shape))


_PROSE = ("description", "title")
_NAMED = ("properties", "$defs")
