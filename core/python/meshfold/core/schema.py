"""Schemas: what values a route carries, and how they become bytes.

A schema's identity is the hash of its descriptor, so two processes that declare the same shape agree without a registry.
Nothing that runs code is ever decoded: there is no pickle, YAML or marshal codec (HS4).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

import msgspec
from meshfold.core.errors import DecodeError, EncodeError, SchemaMismatch

__all__ = ("Schema",)

T = TypeVar("T")
# The class has methods named like these types, which shadow them in its body.
Text: TypeAlias = str
Bytes: TypeAlias = bytes
Integer: TypeAlias = int
Compress = Literal["never", "safe"]

_SCALARS: Final[dict[type, str]] = {bytes: "bytes", float: "float", int: "int", bool: "bool", str: "str"}
#: Bytes of one encoded value; larger ones do not fit into memory-bound queues.
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024


class Schema(Generic[T]):
    """A codec with an identity. Make one with `Schema.float()` and its siblings, or `Schema.of(type)`.

    :param kind: bytes, float, int, bool, str or json
    :param name: what people call it
    :param version: version of the shape; readers of another version are refused by name (S1)
    :param compress: `safe` lets the mesh compress frames before sealing: only where no attacker chooses text beside secrets
    """

    def __init__(
        self,
        kind: str,
        *,
        name: str,
        shape: dict[str, Any] | None = None,
        unit: str | None = None,
        version: int = 1,
        compress: Compress = "never",
        to_bytes: Callable[[Any], bytes] | None = None,
        from_bytes: Callable[[bytes], T] | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.unit = unit
        self.version = version
        self.compress: Compress = compress
        self._shape = shape or {}
        self._to_bytes = to_bytes
        self._from_bytes = from_bytes
        canonical = json.dumps(self.descriptor(), sort_keys=True, separators=(",", ":")).encode()
        #: first 8 bytes of SHA-256 of the canonical descriptor
        self.id: bytes = hashlib.sha256(canonical).digest()[:8]

    @classmethod
    def bytes(cls, name: Text = "bytes", *, compress: Compress = "never") -> Schema[bytes]:
        """Opaque bytes, as they are."""
        return cast("Schema[bytes]", cls("bytes", name=name, compress=compress))

    @classmethod
    def float(
        cls, unit: Text | None = None, name: Text = "float", *, compress: Compress = "never"
    ) -> Schema[float]:
        """IEEE 754 binary64, 8 bytes little-endian. An int up to 2^53 is taken as one; a bool is not."""
        return cast("Schema[float]", cls("float", name=name, unit=unit, compress=compress))

    @classmethod
    def int(cls, name: Text = "int", *, compress: Compress = "never") -> Schema[int]:
        """64-bit signed integer, 8 bytes little-endian; a bool is none."""
        return cast("Schema[int]", cls("int", name=name, compress=compress))

    @classmethod
    def bool(cls, name: Text = "bool", *, compress: Compress = "never") -> Schema[bool]:
        """One byte, 0 or 1."""
        return cast("Schema[bool]", cls("bool", name=name, compress=compress))

    @classmethod
    def str(cls, name: Text = "str", *, compress: Compress = "never") -> Schema[str]:
        """UTF-8 text."""
        return cast("Schema[str]", cls("str", name=name, compress=compress))

    @classmethod
    def json(
        cls, of: type[T], *, name: Text | None = None, version: Integer = 1, compress: Compress = "never"
    ) -> Schema[T]:
        """JSON of a dataclass, a `msgspec.Struct` or a pydantic model, validated on both ends.

        :raises SchemaMismatch: if the type has no JSON shape
        """
        to_bytes, from_bytes, shape = _json_codec(of)
        return Schema(
            "json",
            name=name or of.__name__,
            shape=shape,
            version=version,
            compress=compress,
            to_bytes=to_bytes,
            from_bytes=from_bytes,
        )

    @classmethod
    def of(cls, of: type[T], *, name: Text | None = None) -> Schema[T]:
        """Pick the schema by type: builtins, dataclass, `msgspec.Struct`, pydantic model.

        :raises SchemaMismatch: if the type is none of them
        """
        kind = _SCALARS.get(of)
        if kind is not None:
            return Schema(kind, name=name or kind)
        return cls.json(of, name=name)

    @classmethod
    def from_descriptor(cls, descriptor: dict[Text, Any]) -> Schema[Any]:
        """Make a schema from `descriptor()` of another process; json values decode to plain dicts.

        :raises SchemaMismatch: if the descriptor is not one
        """
        kind = descriptor.get("kind")
        name, version = descriptor.get("name"), descriptor.get("version")
        if (
            kind not in (*_SCALARS.values(), "json")
            or not isinstance(name, str)
            or not isinstance(version, int)
        ):
            raise SchemaMismatch(
                "not a schema descriptor", expected="kind, name, version", found=str(descriptor)[:80]
            )
        made: Schema[Any] = Schema(
            kind,
            name=name,
            shape=descriptor.get("shape", {}),
            unit=descriptor.get("unit"),
            version=version,
            to_bytes=msgspec.json.encode if kind == "json" else None,
            from_bytes=msgspec.json.decode if kind == "json" else None,
        )
        return made

    def descriptor(self) -> dict[Text, Any]:
        """The shape as plain JSON: what the identity is the hash of."""
        found: dict[Text, Any] = {"kind": self.kind, "name": self.name, "version": self.version}
        if self.unit is not None:
            found["unit"] = self.unit
        if self._shape:
            found["shape"] = self._shape
        return found

    def encode(self, value: T, where: Text = "") -> Bytes:
        """Return the value as bytes. Scalars are encoded by the engine; this is called for the rest.

        :raises EncodeError: if the value does not fit
        """
        if self._to_bytes is None:
            raise EncodeError(f"{self.name} values are encoded by the engine", schema=self.name)
        try:
            data = self._to_bytes(value)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise EncodeError(
                f"{where or 'the route'} does not take this value: {error}",
                fix=f"publish a valid {self.name}",
                route=where,
                schema=self.name,
            ) from None
        if len(data) > VALUE_BYTES_MAX:
            raise EncodeError(
                f"a value of {len(data)} bytes for {where}", fix="split it", route=where, schema=self.name
            )
        return data

    def decode(self, data: Bytes) -> T:
        """Return the value.

        :raises DecodeError: if the bytes are no value of this schema
        """
        if self._from_bytes is None:
            raise DecodeError(
                f"{self.name} values are decoded by the engine", reason="schema", schema=self.name
            )
        try:
            return self._from_bytes(data)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise DecodeError(f"not a {self.name}: {error}", reason="decode", schema=self.name) from None

    def __repr__(self) -> Text:
        return f"<Schema {self.kind} {self.name} v{self.version} {self.id.hex()}>"


def _json_codec(of: type[T]) -> tuple[Callable[[Any], Any], Callable[[Any], T], dict[str, Any]]:
    """Encoder, decoder and JSON Schema of a type; pydantic models by pydantic, the rest by msgspec."""
    if hasattr(of, "model_validate_json"):
        model: Any = of

        def to_bytes(value: Any) -> Any:
            _check_type(value, of)
            return value.model_dump_json().encode()

        return (
            to_bytes,
            lambda data: model.model_validate_json(data, strict=True),
            _plain(model.model_json_schema()),
        )
    try:
        decoder = msgspec.json.Decoder(of)
        shape = msgspec.json.schema(of)
    except TypeError as error:
        raise SchemaMismatch(
            f"{of!r} has no JSON shape: {error}",
            fix="use a dataclass, a msgspec.Struct or a pydantic model",
            expected="a structured type",
            found=repr(of),
        ) from None
    encoder = msgspec.json.Encoder()

    def encode(value: Any) -> Any:
        _check_type(value, of)
        data = encoder.encode(value)
        # A dataclass takes anything in its fields: what a reader could not decode must not leave.
        decoder.decode(data)
        return data

    return encode, decoder.decode, _plain(shape)


def _check_type(value: Any, of: type) -> None:
    if not isinstance(value, of):
        raise TypeError(f"expected {of.__name__}, got {type(value).__name__}")


def _plain(shape: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema without prose: a docstring does not change what bytes mean."""

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: strip(item) for key, item in node.items() if key not in ("description", "title")}
        if isinstance(node, list):
            return [strip(item) for item in node]
        return node

    return cast("dict[str, Any]", strip(shape))
