"""What a family of schemas gives to `Schema`: bytes from values, values from bytes, and a shape to hash."""

from __future__ import annotations

import math
from typing import Any, Final, Protocol, TypeAlias

from meshfold.core.errors import SchemaMismatch

__all__ = ("UNFIT", "Codec", "Rows", "finite", "missing", "said")

#: One buffer of bytes, and the bytes of one row or the n + 1 offsets (64-bit) of n rows.
Rows: TypeAlias = tuple[Any, Any]

#: What a codec may raise for a value, bytes or a shape that does not fit; Arrow's own errors are among these.
UNFIT: Final[tuple[type[BaseException], ...]] = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
    OSError,
    NotImplementedError,
)
#: Family -> the extra that brings the library it needs.
_EXTRAS: Final = {"numpy": "numpy", "pyarrow": "arrow", "google.protobuf": "protobuf"}


class Codec(Protocol):
    """One family's way between values and bytes.

    `encode` and `decode` raise TypeError, ValueError or a subclass for what does not fit; `Schema` makes the typed error.
    """

    #: plain JSON that two equal codecs share: part of the schema's identity
    shape: dict[str, Any]

    def encode(self, value: Any) -> bytes:
        """Return the value as bytes."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value of the bytes."""
        ...

    def rows(self, values: Any) -> Rows | None:
        """Return many values as one buffer, or None where `values` has to be taken one by one."""
        ...

    def plain(self, value: Any) -> Any:
        """Return the value as plain JSON, for people and logs."""
        ...


def missing(module: str, item: str) -> SchemaMismatch:
    """The error for a family whose library is not installed."""
    extra = _EXTRAS[module]
    return SchemaMismatch(
        f"{item} needs {module}, which is not installed",
        fix=f"install meshfold[{extra}]",
        expected=module,
        found="nothing",
    )


def finite(value: Any) -> Any:
    """Replace NaN and the infinities, which JSON cannot say, by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, complex):
        return [finite(value.real), finite(value.imag)]
    return value


def said(error: object) -> str:
    """One bounded line; what a peer sent must not fill a log."""
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:200]
