"""Arrow record batches: one IPC message for each batch, its schema agreed beforehand by the route.

Values come from any library through the PyCapsule interface; pyarrow reads and checks them. Invariant: the message is
looked at by `meshfold.core.schema.arrow_message` before a library parses it, and fully validated after.
"""

from __future__ import annotations

from typing import Any

from meshfold.core.errors import SchemaMismatch
from meshfold.core.schema.arrow_message import check_message
from meshfold.core.schema.arrow_types import field_document, field_of
from meshfold.core.schema.codec import UNFIT, Rows, finite, missing, said

try:
    import pyarrow as pa
except ImportError:
    raise missing("pyarrow", "an arrow schema") from None

__all__ = ("ArrowCodec", "from_shape", "scalar_rows", "struct_rows")

FIELDS_MAX = 4096
#: Layouts of one logical type: the first is what travels.
_LAYOUTS = (
    ("string", "large_string", "string_view"),
    ("binary", "large_binary", "binary_view"),
)


class ArrowCodec:
    """Record batches of one schema."""

    def __init__(self, schema: Any) -> None:
        try:
            self._schema = (schema if isinstance(schema, pa.Schema) else pa.schema(schema)).remove_metadata()
        except UNFIT as error:
            raise SchemaMismatch(
                f"{str(schema)[:60]!r} is no Arrow schema: {said(error)}",
                fix="pass a schema of any library that speaks the Arrow PyCapsule interface",
                expected="an Arrow schema",
                found=type(schema).__name__,
            ) from None
        names = self._schema.names
        if not names or len(set(names)) < len(names) or len(names) > FIELDS_MAX:
            raise SchemaMismatch(
                "an Arrow schema needs columns, each with a name of its own",
                expected=f"1 to {FIELDS_MAX} different names",
                found=str(names)[:80],
            )
        self.shape: dict[str, Any] = {"fields": [field_document(field) for field in self._schema]}
        # Nested fields lose their metadata, too: what is not in the identity does not travel.
        self._schema = pa.schema([field_of(row) for row in self.shape["fields"]])

    def encode(self, value: Any) -> bytes:
        """Return one IPC message."""
        data: bytes = self._batch(value).serialize().to_pybytes()
        return data

    def _batch(self, value: Any) -> Any:
        batch = _one_batch(value)
        if batch.schema.names != self._schema.names:
            raise TypeError(f"expected the columns {self._schema.names}, got {batch.schema.names}")
        columns = [
            _laid_out(column, field) for column, field in zip(batch.columns, self._schema, strict=True)
        ]
        made = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        made.validate(full=True)
        return made

    def decode(self, data: bytes) -> Any:
        """Return the record batch; what it shows of the bytes is checked to the last offset."""
        check_message(data)
        batch = pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)
        batch.validate(full=True)
        for column, field in zip(batch.columns, self._schema, strict=True):
            _refuse_stray_offsets(column)
            _refuse_nulls(column, field)
        return batch

    def rows(self, values: Any) -> Rows | None:
        """A table or stream is as many events as it has batches; a batch is one."""
        if isinstance(values, list | tuple):
            return None
        if not hasattr(values, "__arrow_c_stream__") and not hasattr(values, "__arrow_c_array__"):
            return None
        return _joined([self.encode(batch) for batch in _batches(values)])

    def plain(self, value: Any) -> Any:
        """Return a list of rows."""
        return finite(_texts(pa.record_batch(value).to_pylist()))


def _texts(value: Any) -> Any:
    """Dates, times and decimals as text."""
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else str(value)


def from_shape(shape: dict[str, Any]) -> ArrowCodec:
    """Make the codec of `ArrowCodec.shape`.

    :raises SchemaMismatch: if it is none
    """
    try:
        codec = ArrowCodec(pa.schema([field_of(row) for row in shape["fields"]]))
    except UNFIT as error:
        raise SchemaMismatch(
            f"not the shape of an arrow schema: {said(error)}", expected="fields", found=str(shape)[:80]
        ) from None
    if codec.shape != shape:
        raise SchemaMismatch(
            "the Arrow schema reads back differently", expected=str(shape)[:80], found=str(codec.shape)[:80]
        )
    return codec


def _batches(value: Any) -> list[Any]:
    if isinstance(value, pa.RecordBatch):
        return [value]
    if hasattr(value, "__arrow_c_stream__"):
        return list(pa.table(value).to_batches())
    if hasattr(value, "__arrow_c_array__"):
        return [pa.record_batch(value)]
    raise TypeError(f"expected an Arrow batch, got {type(value).__name__}")


def _one_batch(value: Any) -> Any:
    batches = _batches(value)
    if len(batches) > 1:
        batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
    if len(batches) > 1:
        raise ValueError("a table that is more than one batch; use publish_many")
    return batches[0] if batches else pa.table(value).schema.empty_table().to_batches()[0]


def _laid_out(column: Any, field: Any) -> Any:
    if column.type != field.type:
        same = any({str(column.type), str(field.type)} <= set(layouts) for layouts in _LAYOUTS)
        if not same and not _equal_but_nullable(column.type, field.type):
            raise TypeError(f"column {field.name} is {column.type}, not {field.type}")
        column = column.cast(field.type)
    _refuse_nulls(column, field)
    return column


def _equal_but_nullable(have: Any, want: Any) -> bool:
    """Whether two nested types differ only in which parts may be null; the data is checked for that."""

    def loose(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: loose(item)
                for key, item in node.items()
                if key != "nullable" and not _item_name(node, key)
            }
        return [loose(item) for item in node] if isinstance(node, list) else node

    def _item_name(node: dict[str, Any], key: str) -> bool:
        return key == "name" and node.get(key) in ("item", "element", "")

    return bool(loose(field_document(pa.field("", have))) == loose(field_document(pa.field("", want))))


def _refuse_stray_offsets(column: Any) -> None:
    """The offsets of a column without a row, which full validation does not look at; who writes or flattens it trips over them."""
    kinds, type_ = pa.types, column.type
    if kinds.is_struct(type_):
        for index in range(type_.num_fields):
            _refuse_stray_offsets(column.field(index))
        return
    narrow = kinds.is_list(type_) or kinds.is_string(type_) or kinds.is_binary(type_)
    wide = kinds.is_large_list(type_) or kinds.is_large_string(type_) or kinds.is_large_binary(type_)
    if (narrow or wide) and not len(column):
        offsets = column.buffers()[1]
        if offsets is not None and any(memoryview(offsets).cast("B")[: 4 if narrow else 8]):
            raise ValueError("offsets of a column without rows")
    if kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_):
        _refuse_stray_offsets(column.values)


def _refuse_nulls(column: Any, field: Any) -> None:
    """A null where the schema promises none, at any depth."""
    if not field.nullable and column.null_count:
        raise ValueError(f"column {field.name} holds a null")
    if pa.types.is_struct(field.type):
        for index in range(field.type.num_fields):
            _refuse_nulls(column.field(index), field.type.field(index))
    elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        _refuse_nulls(column.flatten(), field.type.value_field)


def _joined(messages: list[bytes]) -> Rows:
    offsets = [0]
    for message in messages:
        offsets.append(offsets[-1] + len(message))
    return b"".join(messages), memoryview(pa.array(offsets, pa.int64()).buffers()[1]).cast("q")


def _column(values: Any) -> Any:
    """One Arrow array of whatever was given."""
    if hasattr(values, "__arrow_c_array__"):
        array = pa.array(values)
    else:
        array = pa.chunked_array(values).combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
    array.validate(full=True)
    if array.null_count:
        raise ValueError(f"{array.null_count} nulls; drop or fill them")
    return array


def scalar_rows(kind: str, values: Any) -> Rows:
    """Rows of an Arrow array for a scalar schema; numbers widen exactly or not at all, nulls are refused."""
    array = _column(values)
    kinds, have = pa.types, array.type
    number = kinds.is_integer(have) or (kind == "float" and kinds.is_floating(have))
    if kind in ("int", "float") and number:
        width = pa.int64() if kind == "int" else pa.float64()
        array = array.cast(width)
        data = memoryview(array.buffers()[1] or b"").cast("B")
        return data[array.offset * 8 : (array.offset + len(array)) * 8], 8
    if kind == "bool" and kinds.is_boolean(have):
        array = array.cast(pa.uint8())
        data = memoryview(array.buffers()[1] or b"").cast("B")
        return data[array.offset : array.offset + len(array)], 1
    text = kinds.is_string(have) or kinds.is_large_string(have) or kinds.is_string_view(have)
    octets = kinds.is_binary(have) or kinds.is_large_binary(have) or kinds.is_binary_view(have)
    if (kind == "str" and text) or (kind == "bytes" and octets):
        array = array.cast(pa.large_string() if text else pa.large_binary())
        _, offsets, data = array.buffers()
        window = memoryview(offsets).cast("q")[array.offset : array.offset + len(array) + 1]
        return memoryview(data or b"").cast("B"), window
    raise TypeError(f"an Arrow array of {have} on a {kind} route")


def struct_rows(values: Any, dtype: Any) -> Any:
    """A batch's rows as a structured NumPy array: columns by name, without nulls, widened exactly or not at all."""
    import numpy

    if dtype.names is None:
        batch = pa.record_batch({"": _column(values)})
        out = numpy.empty(len(batch), dtype)
        targets = [out]
    else:
        batch = _one_batch(values)
        if tuple(batch.schema.names) != dtype.names:
            raise TypeError(f"expected the columns {list(dtype.names)}, got {batch.schema.names}")
        out = numpy.empty(len(batch), dtype)
        targets = [out[name] for name in dtype.names]
    for name, column, target in zip(batch.schema.names, batch.columns, targets, strict=True):
        column.validate(full=True)
        if column.null_count:
            raise ValueError(f"column {name} holds {column.null_count} nulls")
        if target.ndim != 1:
            raise TypeError(f"column {name}: fields with axes are not filled from Arrow")
        given = column.to_numpy(zero_copy_only=False)
        if not numpy.can_cast(given.dtype, target.dtype, "safe"):
            raise TypeError(f"column {name} is {column.type}, which {target.dtype} does not hold")
        target[...] = given
    return out
