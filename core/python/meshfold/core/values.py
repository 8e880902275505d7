"""Reading the results of a pipeline that ends in no route."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from meshfold.core.closing import Closing
from meshfold.core.errors import WiringError
from meshfold.core.stream import Wake

if TYPE_CHECKING:
    from meshfold.core.operator import Operator

__all__ = ("ValueStream",)

T = TypeVar("T")


class ValueStream(Closing, Generic[T]):
    """Values in order: `async for value in stream`, or `for value in stream.blocking(timeout)`.

    :param capacity: values held for a reader that is behind; then the oldest is dropped and counted in `dropped`
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise WiringError(f"a capacity of {capacity}", fix="use at least 1", item="capacity")
        self._values: deque[T] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._wake = Wake()
        self._operator: Operator | None = None
        self._closed = False
        #: values lost because the reader was behind
        self.dropped = 0

    def attach(self, operator: Operator) -> None:
        """Name the operator that is closed with this."""
        self._operator = operator

    @property
    def operator(self) -> Operator | None:
        """The operator that feeds it."""
        return self._operator

    def put(self, value: T) -> None:
        """Take a value in; called inside the turn."""
        with self._changed:
            if self._closed:
                return
            if len(self._values) >= self._capacity:
                self._values.popleft()
                self.dropped += 1
            self._values.append(value)
            self._changed.notify_all()
        self._wake()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._read()

    async def _read(self) -> AsyncIterator[T]:
        waiter = self._wake.listen()
        try:
            while True:
                waiter.clear()
                while self._values:
                    yield self._values.popleft()
                if self._closed:
                    return
                await waiter.wait()
        finally:
            self._wake.forget()

    def blocking(self, timeout: float | None = None) -> Iterator[T]:
        """Iterate without asyncio; ends when nothing came for `timeout` seconds, or once it is closed."""
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._values or self._closed, timeout):
                    return
                if not self._values:
                    return
                value = self._values.popleft()
            yield value

    def close(self) -> None:
        """Take the operator off; what waits can still be read. Idempotent."""
        if self._operator is not None:
            self._operator.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()
