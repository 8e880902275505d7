"""Devices at the end of a stream of bytes: serial lines, sockets, pseudo-terminals."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from meshfold.core.closing import Closing
from meshfold.core.event import Event
from meshfold.core.graph import Graph
from meshfold.core.route import Route
from meshfold.core.sensors.framing import Framer
from meshfold.core.sensors.sources import ReactiveSensorSource

__all__ = ("DuplexPeripheralAdapter", "PeripheralAdapter")

T = TypeVar("T")
C = TypeVar("C")

READ_BYTES = 4096
#: How long closing waits for the reader.
STOP_S = 10.0


class PeripheralAdapter(Closing, Generic[T]):
    """Reads a file descriptor in a thread, cuts messages out of what comes, and emits what they decode to.

    The descriptor stays the caller's: closing the adapter does not close it. `ended` tells that the device hung up.

    :param framer: `DelimitedMessageBuffer`, `FrameAssembler` or one like them
    :param decode: message to value; None keeps it out, what it raises is counted in `failures`
    """

    def __init__(
        self,
        fd: int,
        source: ReactiveSensorSource[T],
        framer: Framer,
        decode: Callable[[bytes], T | None],
    ) -> None:
        self._fd = fd
        self._source = source
        self._framer = framer
        self._decode = decode
        self._wake_read, self._wake_write = os.pipe()
        self._closed = False
        #: Set when the device's end was closed or failed.
        self.ended = threading.Event()
        #: Messages that were published.
        self.published = 0
        #: Messages that could not be decoded or published.
        self.failures = 0
        self.last_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="peripheral", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:  # a pseudo-terminal says EIO when its other end is closed
                self.last_error = error
                data = b""
            if not data:
                self.ended.set()
                return
            for message in self._framer.feed(data):
                self._take(message)

    def _take(self, message: bytes) -> None:
        try:
            value = self._decode(message)
            if value is not None:
                self._source.emit(value)
                self.published += 1
        except Exception as error:  # noqa: BLE001 - one bad message does not end the line
            self.failures += 1
            self.last_error = error

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")
        self._thread.join(STOP_S)
        os.close(self._wake_write)
        os.close(self._wake_read)


class DuplexPeripheralAdapter(PeripheralAdapter[T], Generic[T, C]):
    """A peripheral that takes commands as well: every event of `commands` is encoded and written to the descriptor.

    Writing happens on a thread of its own, in order, from a queue of `capacity` commands; the oldest give way when the
    device does not take them, counted on the edge as `overflow_oldest`.

    :param encode: command to the bytes to write, framing included
    """

    def __init__(
        self,
        fd: int,
        source: ReactiveSensorSource[T],
        framer: Framer,
        decode: Callable[[bytes], T | None],
        *,
        graph: Graph,
        commands: Route[C],
        encode: Callable[[C], bytes],
        capacity: int = 64,
    ) -> None:
        super().__init__(fd, source, framer, decode)

        def write(event: Event[Any]) -> None:
            data = encode(event.value)
            while data:
                data = data[os.write(fd, data) :]

        self._commands = graph.observe(commands, write, replay_latest=False, capacity=capacity)

    def close(self) -> None:
        """Stop taking commands, then stop reading. Idempotent."""
        self._commands.close()
        super().close()
