"""NumPy arrays of one dtype and shape: the array's bytes in C order, little-endian.

Invariants: the bytes are the values and nothing else - no objects, no padding (which would carry old memory away), no
big-endian; decoding checks what NumPy would trip over later: booleans other than 0 and 1, text beyond Unicode.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from meshfold.core.errors import SchemaMismatch
from meshfold.core.schema.codec import UNFIT, Rows, finite, missing, said

try:
    import numpy
except ImportError:
    raise missing("numpy", "a numpy schema") from None

__all__ = ("NumpyCodec", "from_shape", "scalar_rows")

DIMENSIONS_MAX: Final = 16
#: A double holds every integer up to here.
_EXACT_MAX: Final = 2**53


class NumpyCodec:
    """Arrays of one dtype and shape."""

    def __init__(self, dtype: Any, shape: Any) -> None:
        self.dtype = _dtype(dtype)
        self.axes = _axes(shape)
        self._free = bool(self.axes) and self.axes[0] is None
        count = 1
        for length in self.axes:
            count *= length if length is not None else 1
        #: bytes of one value, or of one step of the free axis
        self.width = count * self.dtype.itemsize
        from meshfold.core.schema.base import VALUE_BYTES_MAX

        if self.width > VALUE_BYTES_MAX:
            raise SchemaMismatch(
                f"arrays of {self.width} bytes",
                fix="split them along an axis",
                expected=f"at most {VALUE_BYTES_MAX}",
                found=str(self.width),
            )
        base = ",".join(self.dtype.names) if self.dtype.names else self.dtype.name
        axes = "x".join("n" if length is None else str(length) for length in self.axes)
        self.name = f"{base}[{axes}]"[:64] if axes else base[:64]
        fields = _described(self.dtype)
        self.shape: dict[str, Any] = {"dtype": fields, "shape": list(self.axes)}
        self._checks = list(_checks(self.dtype))

    def _fits(self, value: Any, lead: int = 0) -> Any:
        """Return `value` as a contiguous array of this dtype and shape, after `lead` further axes in front."""
        if isinstance(value, numpy.ma.MaskedArray):
            raise TypeError("a masked array; fill it first, the mask does not travel")
        if not isinstance(value, numpy.ndarray | numpy.generic):
            raise TypeError(f"expected an array, got {type(value).__name__}")
        if value.dtype != self.dtype:
            swapped = value.dtype.newbyteorder("S") == self.dtype
            why = "its bytes are in the other order, use .astype" if swapped else "use .astype"
            raise TypeError(f"expected dtype {self.dtype}, got {value.dtype}; {why}")
        axes = value.shape[lead:]
        same = len(axes) == len(self.axes) and all(
            want is None or want == have for want, have in zip(self.axes, axes, strict=True)
        )
        if not same or value.ndim < lead:
            raise ValueError(f"expected shape {self._axes_text()}, got {value.shape}")
        return numpy.ascontiguousarray(value).reshape(value.shape)

    def _axes_text(self) -> str:
        return str(self.axes).replace("None", "any")

    def encode(self, value: Any) -> bytes:
        """Return the array's bytes in C order."""
        array = self._fits(value)
        self._check(array)
        data: bytes = array.tobytes()
        return data

    def decode(self, data: bytes) -> Any:
        """Return a read-only array over the bytes; a scalar where the shape is ()."""
        if self._free:
            count, rest = divmod(len(data), self.width) if self.width else (0, len(data))
            axes = (count, *self.axes[1:])
        else:
            rest, axes = len(data) - self.width, self.axes
        if rest:
            raise ValueError(f"{len(data)} bytes for dtype {self.dtype} and shape {self._axes_text()}")
        array = numpy.frombuffer(data, self.dtype) if data else numpy.empty(0, self.dtype)
        array = array.reshape(tuple(length or 0 for length in axes))
        array.flags.writeable = False
        self._check(array)
        return array[()] if not self.axes else array

    def column(self, data: bytes, count: int) -> Any:
        """Return many values of this shape as one read-only array with one more axis in front; None: of no fixed shape."""
        if self._free:
            return None
        if len(data) != count * self.width:
            raise ValueError(f"{len(data)} bytes for {count} arrays of {self.width}")
        array = numpy.frombuffer(data, self.dtype) if data else numpy.empty(0, self.dtype)
        array = array.reshape(count, *(length or 0 for length in self.axes))
        array.flags.writeable = False
        self._check(array)
        return array

    def _check(self, array: Any) -> None:
        for path, check in self._checks:
            part = array
            for name in path:
                part = part[name]
            check(part)

    def rows(self, values: Any) -> Rows | None:
        """Take an array with one more axis in front, or an Arrow batch for a structured dtype: one row is one value."""
        if isinstance(values, numpy.ndarray) and not self._free:
            array = self._fits(values, 1)
            self._check(array)
            return _bytes(array), self.width
        if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
            from meshfold.core.schema.arrow_codec import struct_rows

            array = struct_rows(values, self.dtype)
            return self.rows(array.reshape(-1, *self.axes) if self.axes else array)
        return None

    def plain(self, value: Any) -> Any:
        """Return nested lists; fields of a structured dtype by name."""
        return finite(_plain(numpy.asarray(value)))


def _plain(array: Any) -> Any:
    if array.dtype.names:
        columns = {name: _plain(array[name]) for name in array.dtype.names}
        if not array.shape:
            return columns
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if array.dtype.kind in "mM":
        return array.astype(str).tolist()
    return array.tolist()


def _bytes(array: Any) -> Any:
    return numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)


def _dtype(given: Any) -> Any:
    try:
        dtype = numpy.dtype(given)
    except (TypeError, ValueError, SyntaxError) as error:
        raise SchemaMismatch(
            f"{str(given)[:80]!r} is no dtype: {said(error)}", expected="a NumPy dtype", found=str(given)[:80]
        ) from None
    why = _unfit(dtype)
    if why:
        raise SchemaMismatch(f"dtype {dtype}: {why}", expected="a fixed layout", found=str(dtype))
    # One spelling on every host: '<f8', never '=f8'.
    return dtype.newbyteorder("<")


def _unfit(dtype: Any) -> str:
    """Why values of the dtype have no bytes of their own, empty if they do."""
    if dtype.hasobject:
        return "Python objects have no bytes; name the fields' types"
    if dtype.subdtype is not None:
        return "an axis inside the dtype; say it in shape"
    if dtype.names is not None:
        offset = 0
        for name in dtype.names:
            field, at = dtype.fields[name][:2]
            if at != offset:
                return "padding between fields; numpy.lib.recfunctions.repack_fields removes it"
            base = field.base if field.subdtype is not None else field
            if why := _unfit(base):
                return f"field {name}: {why}"
            offset += field.itemsize
        return "" if offset == dtype.itemsize else "padding at its end"
    if dtype.kind not in "biufcSUVmM" or dtype.itemsize == 0:
        return "not a fixed number of bytes"
    if (dtype.kind == "f" and dtype.itemsize > 8) or (dtype.kind == "c" and dtype.itemsize > 16):
        return "long doubles differ from machine to machine; use float64"
    big = ">" if sys.byteorder == "little" else "="
    return "big-endian; use newbyteorder('<')" if dtype.byteorder == big else ""


def _axes(shape: Any) -> tuple[int | None, ...]:
    axes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    fits = len(axes) <= DIMENSIONS_MAX and all(
        (length is None and place == 0)
        or (isinstance(length, int) and not isinstance(length, bool) and 1 <= length < 2**31)
        for place, length in enumerate(axes)
    )
    if not fits:
        raise SchemaMismatch(
            f"{str(shape)[:80]} is no shape",
            fix="axes of at least 1; the first may be None",
            expected=f"up to {DIMENSIONS_MAX} axes",
            found=str(shape)[:80],
        )
    return axes


def _described(dtype: Any) -> Any:
    """A dtype as plain JSON: '<f8', or a list of [name, dtype] or [name, dtype, axes]."""
    if dtype.names is None:
        return dtype.str
    rows: list[list[Any]] = []
    for name in dtype.names:
        field = dtype.fields[name][0]
        base, axes = (field.base, list(field.shape)) if field.subdtype is not None else (field, [])
        rows.append([name, _described(base), *([axes] if axes else [])])
    return rows


def from_shape(shape: dict[str, Any]) -> NumpyCodec:
    """Make the codec of `NumpyCodec.shape`.

    :raises SchemaMismatch: if it is none
    """

    def dtype(node: Any) -> Any:
        if isinstance(node, str):
            return node
        return [(row[0], dtype(row[1]), *(tuple(axes) for axes in row[2:])) for row in node]

    try:
        codec = NumpyCodec(dtype(shape["dtype"]), tuple(shape["shape"]))
    except UNFIT as error:
        raise SchemaMismatch(
            f"not the shape of a numpy schema: {said(error)}", expected="dtype, shape", found=str(shape)[:80]
        ) from None
    if codec.shape != shape:
        raise SchemaMismatch(
            "the dtype reads back differently", expected=str(shape)[:80], found=str(codec.shape)[:80]
        )
    return codec


def _checks(dtype: Any, path: tuple[str, ...] = ()) -> Any:
    """What has to hold for the bytes of each field: (path of names, check)."""
    if dtype.names is not None:
        for name in dtype.names:
            field = dtype.fields[name][0]
            yield from _checks(field.base if field.subdtype is not None else field, (*path, name))
    elif dtype.kind == "b":
        yield path, _check_booleans
    elif dtype.kind == "U":
        yield path, _check_text


def _check_booleans(array: Any) -> None:
    if numpy.any(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8) > 1):
        raise ValueError("a boolean that is neither 0 nor 1")


def _check_text(array: Any) -> None:
    points = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint32)
    if numpy.any(points > 0x10FFFF) or numpy.any((points >= 0xD800) & (points <= 0xDFFF)):
        raise ValueError("text beyond Unicode")


def scalar_rows(kind: str, values: Any) -> Rows | None:
    """Rows of a one-dimensional array for a scalar schema; None where values have to be taken one by one.

    Integers widen to 64 bits and floats to binary64, exactly or not at all.
    """
    if not isinstance(values, numpy.ndarray):
        return None
    if isinstance(values, numpy.ma.MaskedArray):
        raise TypeError("a masked array; fill it first, the mask does not travel")
    if values.ndim != 1:
        raise ValueError(f"an array of shape {values.shape}; a {kind} route takes one axis")
    have = values.dtype.kind
    if kind == "float" and have in "iu":
        if values.size and max(abs(int(values.max())), abs(int(values.min()))) > _EXACT_MAX:
            raise ValueError("an integer beyond 2^53, which a float does not hold")
        return _bytes(values.astype("<f8")), 8
    if kind == "float" and have == "f" and values.dtype.itemsize <= 8:
        return _bytes(values.astype("<f8")), 8
    if kind == "int" and have in "iu":
        if have == "u" and values.size and int(values.max()) >= 2**63:
            raise ValueError("an integer beyond 64 bits with sign")
        return _bytes(values.astype("<i8")), 8
    if kind == "bool" and have == "b":
        _check_booleans(values)
        return _bytes(values), 1
    if kind in ("str", "bytes") and have in "US":
        return None
    raise TypeError(f"an array of dtype {values.dtype} on a {kind} route")
