"""`with` for whatever is ended by `close`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ("Closing",)


class Closing:
    """A context manager that is closed at its end."""

    __slots__ = ()

    def close(self) -> None:
        """End it. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
