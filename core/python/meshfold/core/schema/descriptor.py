"""Schemas from the descriptors of other processes (catalogs, checkpoints, manifests)."""

from __future__ import annotations

from typing import Any, Final

from meshfold.core.errors import EncodeError, SchemaMismatch
from meshfold.core.schema.base import SCALARS, Schema
from meshfold.core.schema.codec import Codec, Rows, finite

__all__ = ("from_descriptor",)

_KEYS: Final = frozenset(("kind", "name", "version", "unit", "shape"))
_FAMILIES: Final = ("json", "protobuf", "numpy", "arrow")
NAME_CHARACTERS_MAX: Final = 256


def from_descriptor(descriptor: Any) -> Schema[Any]:
    """Make a schema of the same identity.

    :raises SchemaMismatch: if `descriptor` is not one
    """
    if not isinstance(descriptor, dict) or not descriptor.keys() <= _KEYS:
        raise _refused(descriptor)
    kind: Any = descriptor.get("kind")
    name: Any = descriptor.get("name")
    version: Any = descriptor.get("version")
    unit: Any = descriptor.get("unit")
    shape: Any = descriptor.get("shape", {})
    fits = (
        isinstance(name, str)
        and len(name) <= NAME_CHARACTERS_MAX
        and isinstance(version, int)
        and not isinstance(version, bool)
        and (unit is None or isinstance(unit, str))
        and isinstance(shape, dict)
    )
    known = isinstance(kind, str) and kind in (*SCALARS.values(), *_FAMILIES)
    if not fits or not known or (kind in SCALARS.values() and shape):
        raise _refused(descriptor)
    codec = _codec(kind, name, shape) if kind in _FAMILIES else None
    return Schema(kind, name=name, unit=unit, version=version, codec=codec)


def _refused(descriptor: Any) -> SchemaMismatch:
    return SchemaMismatch(
        "not a schema descriptor", expected="kind, name, version", found=str(descriptor)[:80]
    )


def _codec(kind: str, name: str, shape: dict[str, Any]) -> Codec:
    if kind == "json":
        from meshfold.core.schema.json_codec import untyped_json

        return untyped_json(shape)
    try:
        if kind == "protobuf":
            from meshfold.core.schema.protobuf_codec import rebuild

            return rebuild(shape)
        if kind == "numpy":
            from meshfold.core.schema.numpy_codec import from_shape as numpy_shape

            return numpy_shape(shape)
        from meshfold.core.schema.arrow_codec import from_shape as arrow_shape

        return arrow_shape(shape)
    except SchemaMismatch as error:
        if error.fields.get("found") != "nothing":
            raise
        return _Absent(name, shape, error)


class _Absent:
    """A family whose library is not installed: known by name and identity, without values."""

    def __init__(self, name: str, shape: dict[str, Any], why: SchemaMismatch) -> None:
        self.shape = shape
        self._name = name
        self._why = why

    def _refuse(self) -> EncodeError:
        return EncodeError(
            f"values of {self._name}: {self._why.what}", fix=self._why.fix, route="", schema=self._name
        )

    def encode(self, value: Any) -> bytes:
        """Refuse."""
        raise self._refuse()

    def decode(self, data: bytes) -> Any:
        """Refuse."""
        raise SchemaMismatch(self._why.what, fix=self._why.fix, **self._why.fields)

    def rows(self, values: Any) -> Rows | None:
        """Refuse."""
        raise self._refuse()

    def plain(self, value: Any) -> Any:
        """Return what there is."""
        return finite(value)
