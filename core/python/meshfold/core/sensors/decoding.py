"""Messages to values; what cannot be decoded is counted and kept out."""

from __future__ import annotations

from typing import Generic, TypeVar

from meshfold.core.errors import DecodeError
from meshfold.core.schema import Schema

__all__ = ("JsonEventDecoder",)

T = TypeVar("T")


class JsonEventDecoder(Generic[T]):
    """Decodes JSON messages as one type: a dataclass, `msgspec.Struct` or pydantic model.

    :raises SchemaMismatch: if the type has no JSON shape
    """

    def __init__(self, of: type[T]) -> None:
        self._schema: Schema[T] = Schema.json(of)
        #: Messages that were no such value.
        self.rejected = 0
        #: Why the last of them was not.
        self.last_error = ""

    def __call__(self, message: bytes) -> T | None:
        """The value, or None for a message that is none (counted)."""
        try:
            return self._schema.decode(message)
        except DecodeError as error:
            self.rejected += 1
            self.last_error = str(error)
            return None
