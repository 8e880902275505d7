"""`Schema`: a codec with an identity.

A schema's identity is the hash of its descriptor, so two processes that declare the same shape agree without a registry.
Nothing that runs code is ever decoded: there is no pickle, YAML or marshal codec (HS4).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from meshfold.core.errors import DecodeError, EncodeError, MeshfoldError, SchemaMismatch
from meshfold.core.schema.codec import UNFIT, Codec, Rows, finite, said

if TYPE_CHECKING:
    import numpy
    from google.protobuf.message import Message
    from meshfold.core.schema.contract import Upcaster

    Proto = TypeVar("Proto", bound=Message)

__all__ = ("VALUE_BYTES_MAX", "Schema")

T = TypeVar("T")
Old = TypeVar("Old")
# The class has methods named like these types, which shadow them in its body.
Text: TypeAlias = str
Bytes: TypeAlias = bytes
Integer: TypeAlias = int
Boolean: TypeAlias = bool
Compress = Literal["never", "safe"]

SCALARS: Final[dict[type, str]] = {bytes: "bytes", float: "float", int: "int", bool: "bool", str: "str"}
#: Bytes of one encoded value; larger ones do not fit into memory-bound queues.
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024


class Schema(Generic[T]):
    """A codec with an identity. Make one with `Schema.float()` and its siblings, or `Schema.of(type)`. Immutable.

    :param kind: bytes, float, int, bool, str, json, protobuf, numpy or arrow
    :param name: what people call it
    :param version: version of the shape; readers of another version are refused by name (S1)
    :param compress: `safe` lets the mesh compress frames before sealing: only where no attacker chooses text beside secrets
    :param codec: how values become bytes; None for scalars, which the engine encodes
    """

    def __init__(
        self,
        kind: str,
        *,
        name: str,
        unit: str | None = None,
        version: int = 1,
        compress: Compress = "never",
        codec: Codec | None = None,
    ) -> None:
        if type(version) is not int or not 1 <= version < 2**31:
            raise SchemaMismatch(
                f"schema {name} has the version {version!r}",
                fix="count versions from 1",
                expected="1 to 2^31 - 1",
                found=repr(version),
            )
        self.kind = kind
        self.name = name
        self.unit = unit
        self.version = version
        self.compress: Compress = compress
        self.codec = codec
        #: other schemas whose events become ours, by identity; see `accepts`
        self.upcasters: dict[Bytes, Upcaster] = {}
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
        """IEEE 754 binary64, 8 bytes little-endian, NaN and infinities included.

        An int up to 2^53 is taken as one; a bool is not.
        """
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
        """UTF-8 text; a lone surrogate is none."""
        return cast("Schema[str]", cls("str", name=name, compress=compress))

    @classmethod
    def json(
        cls, of: type[T], *, name: Text | None = None, version: Integer = 1, compress: Compress = "never"
    ) -> Schema[T]:
        """JSON of a dataclass, a `msgspec.Struct` or a pydantic model, validated on both ends.

        :raises SchemaMismatch: if the type has no JSON shape
        """
        from meshfold.core.schema.json_codec import json_codec

        codec = json_codec(of)
        return Schema("json", name=name or of.__name__, version=version, compress=compress, codec=codec)

    @classmethod
    def protobuf(
        cls, of: type[Proto], *, name: Text | None = None, version: Integer = 1, compress: Compress = "never"
    ) -> Schema[Proto]:
        """Messages of a generated protobuf class, in deterministic wire form.

        :raises SchemaMismatch: if `of` is no message class, or protobuf is not installed
        """
        from meshfold.core.schema.protobuf_codec import ProtobufCodec

        codec = ProtobufCodec(of)
        made: Schema[Any] = Schema(
            "protobuf", name=name or codec.name, version=version, compress=compress, codec=codec
        )
        return made

    @classmethod
    def numpy(
        cls,
        dtype: Any,
        shape: tuple[Integer | None, ...] = (),
        *,
        name: Text | None = None,
        version: Integer = 1,
        compress: Compress = "never",
    ) -> Schema[numpy.ndarray[Any, Any]]:
        """Arrays of one dtype and shape: C order, little-endian, no padding. Decoded arrays are read-only views.

        :param dtype: anything `numpy.dtype` takes, structured ones included; no Python objects, no big-endian
        :param shape: the first axis may be None: any length
        :raises SchemaMismatch: if values of this dtype and shape have no fixed bytes, or NumPy is not installed
        """
        from meshfold.core.schema.numpy_codec import NumpyCodec

        codec = NumpyCodec(dtype, shape)
        made: Schema[Any] = Schema(
            "numpy", name=name or codec.name, version=version, compress=compress, codec=codec
        )
        return made

    @classmethod
    def arrow(
        cls, schema: Any, *, name: Text = "arrow", version: Integer = 1, compress: Compress = "never"
    ) -> Schema[Any]:
        """Record batches of one Arrow schema; each event is a batch, read back as a `pyarrow.RecordBatch`.

        :param schema: any library's schema, by the Arrow PyCapsule interface; values likewise
        :raises SchemaMismatch: if it holds a type without a fixed layout, or pyarrow is not installed
        """
        from meshfold.core.schema.arrow_codec import ArrowCodec

        return Schema("arrow", name=name, version=version, compress=compress, codec=ArrowCodec(schema))

    @classmethod
    def of(cls, of: type[T], *, name: Text | None = None, version: Integer = 1) -> Schema[T]:
        """Pick the schema by type: builtins, dataclass, `msgspec.Struct`, pydantic model, protobuf message.

        :raises SchemaMismatch: if the type is none of them
        """
        kind = SCALARS.get(of)
        if kind is not None:
            return Schema(kind, name=name or kind, version=version)
        if hasattr(of, "DESCRIPTOR") and hasattr(of, "SerializeToString"):
            return cast("Schema[T]", cls.protobuf(cast("Any", of), name=name, version=version))
        return cls.json(of, name=name, version=version)

    @classmethod
    def from_descriptor(cls, descriptor: dict[Text, Any]) -> Schema[Any]:
        """Make a schema from `descriptor()` of another process: the same identity, and values as that family's own
        types; JSON values are plain dicts.

        A family whose library is not installed gives a schema that is known by name and refuses values.

        :raises SchemaMismatch: if the descriptor is not one
        """
        from meshfold.core.schema.descriptor import from_descriptor

        return from_descriptor(descriptor)

    def accepts(self, older: Schema[Old] | type[Old], mapper: Callable[[Old], T] | None = None) -> Schema[T]:
        """Return this schema with a way in for another version: its events are upcast where they enter a graph (S1).

        The identity stays. What `older` accepts in turn is accepted, too. Without a mapper the upgrade must lose nothing:
        new fields have defaults, none is taken away or changes its type.

        :param older: the schema of the events, or its type
        :param mapper: makes a value of ours from one of theirs; one that raises refuses the event
        :raises SchemaMismatch: with reason `compat` if it is not compatible without a mapper, or registered already
        """
        from meshfold.core.schema.contract import register

        schema: Schema[Any] = older if isinstance(older, Schema) else Schema.of(older)
        found = copy.copy(self)
        found.upcasters = register(self, self.upcasters, schema, mapper)
        return found

    def upcast(self, identity: Bytes, data: Bytes) -> Bytes:
        """Return the bytes of an event of schema `identity` as bytes of this schema.

        :raises SchemaMismatch: if no way from it is registered
        :raises DecodeError: if the bytes are no value of that schema, or its mapper refuses them
        """
        if identity == self.id:
            return data
        way = self.upcasters.get(identity)
        if way is None:
            raise SchemaMismatch(
                f"{self.name} v{self.version} does not accept events of schema {identity.hex()}",
                fix="register the version: schema.accepts(Older, mapper)",
                expected=self.name,
                found=identity.hex(),
            )
        return way.upcast(self, data)

    def descriptor(self) -> dict[Text, Any]:
        """The shape as plain JSON: what the identity is the hash of."""
        found: dict[Text, Any] = {"kind": self.kind, "name": self.name, "version": self.version}
        if self.unit is not None:
            found["unit"] = self.unit
        if self.codec is not None and self.codec.shape:
            found["shape"] = self.codec.shape
        return found

    def encode(self, value: T, where: Text = "") -> Bytes:
        """Return the value as bytes.

        :raises EncodeError: if the value does not fit
        """
        if self.codec is None:
            from meshfold._native import encode_scalar

            return encode_scalar(self.kind, where or self.name, value)
        data: Bytes = self._guard(self.codec.encode, value, where)
        if len(data) > VALUE_BYTES_MAX:
            raise EncodeError(
                f"a value of {len(data)} bytes for {where or self.name}",
                fix=f"split it: at most {VALUE_BYTES_MAX}",
                route=where,
                schema=self.name,
            )
        return data

    def rows(self, values: Any, where: Text = "") -> Rows | None:
        """Return many values as one buffer with a row width or offsets; None where they are taken one by one.

        NumPy arrays and whatever speaks the Arrow PyCapsule interface become rows without an object for each value.

        :raises EncodeError: if one of the values does not fit
        """
        if self.codec is not None:
            return cast("Rows | None", self._guard(self.codec.rows, values, where))
        if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
            from meshfold.core.schema.arrow_codec import scalar_rows as arrow_rows

            return cast("Rows | None", self._guard(lambda given: arrow_rows(self.kind, given), values, where))
        if type(values).__module__.partition(".")[0] == "numpy":
            from meshfold.core.schema.numpy_codec import scalar_rows

            return cast(
                "Rows | None", self._guard(lambda given: scalar_rows(self.kind, given), values, where)
            )
        return None

    def _guard(self, call: Callable[[Any], Any], value: Any, where: Text) -> Any:
        try:
            return call(value)
        except MeshfoldError:
            raise
        except _unfit(self.kind) as error:
            raise EncodeError(
                f"{where or 'the route'} does not take this value: {said(error)}",
                fix=f"publish a valid {self.name}",
                route=where,
                schema=self.name,
            ) from None

    def decode(self, data: Bytes) -> T:
        """Return the value.

        :raises DecodeError: if the bytes are no value of this schema
        """
        if self.codec is None:
            from meshfold._native import decode_scalar

            return cast("T", decode_scalar(self.kind, self.name, data))
        if len(data) > VALUE_BYTES_MAX:
            raise DecodeError(
                f"a {self.name} of {len(data)} bytes, above {VALUE_BYTES_MAX}",
                reason="size",
                schema=self.name,
            )
        try:
            return cast("T", self.codec.decode(data))
        except MeshfoldError:
            raise
        except _unfit(self.kind) as error:
            raise DecodeError(
                f"not a {self.name}: {said(error)}", reason="decode", schema=self.name
            ) from None

    def plain(self, value: T) -> Any:
        """Return the value as plain JSON for people and logs; bytes are hex, NaN and infinities are named."""
        return finite(value) if self.codec is None else self.codec.plain(value)

    def __repr__(self) -> Text:
        return f"<Schema {self.kind} {self.name} v{self.version} {self.id.hex()}>"


def _unfit(kind: str) -> tuple[type[BaseException], ...]:
    """What encoding or decoding may raise, errors of the family's library included."""
    if kind == "protobuf":
        from google.protobuf.message import Error

        return (*UNFIT, Error)
    if kind == "json":
        import msgspec

        return (*UNFIT, msgspec.MsgspecError)
    return UNFIT
