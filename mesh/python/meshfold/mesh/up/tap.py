"""The wire tap of `up`: sits on the TCP stream between the nodes and the server and looks for canaries.

It sees what a hostile broker sees. A canary of a sealed route anywhere is a leak; the canary of the one route declared
plaintext must be found, otherwise a tap that finds nothing proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable

from meshfold.core.jobs import end_jobs

__all__ = ("MessageCounter", "WireTap")

CHUNK_BYTES = 65_536
#: Longest protocol line kept while its end is awaited; the server's own limit is the same.
LINE_BYTES_MAX = 65_536
_CARRIES = (b"PUB ", b"HPUB ", b"MSG ", b"HMSG ")


class MessageCounter:
    """Follows one direction of a NATS connection and counts its messages, payloads skipped by their length.

    What stands inside a payload cannot pass for a message.
    """

    def __init__(self) -> None:
        self._line = b""
        self._skip = 0

    def feed(self, chunk: bytes) -> int:
        """Take in the next bytes; return how many messages began in them."""
        found = 0
        at = 0
        while at < len(chunk):
            if self._skip:
                step = min(self._skip, len(chunk) - at)
                self._skip -= step
                at += step
                continue
            end = chunk.find(b"\n", at)
            if end < 0:
                self._line = (self._line + chunk[at:])[-LINE_BYTES_MAX:]
                break
            line, self._line = self._line + chunk[at:end], b""
            at = end + 1
            size = line.rsplit(None, 1)[-1] if line.startswith(_CARRIES) else b""
            if size.isdigit():
                found += 1
                self._skip = int(size) + len(b"\r\n")
        return found


class WireTap:
    """A TCP proxy to the server. Nodes get its URL instead of the server's."""

    def __init__(self, canaries: Iterable[str], control: str) -> None:
        sealed = sorted(canaries)
        self._needle = re.compile(b"|".join(re.escape(text.encode()) for text in (*sealed, control)))
        self._control = control.encode()
        self._keep = max(len(text) for text in (*sealed, control)) - 1
        self.frames_seen = 0
        self.plaintext_found = 0
        self.control_found = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.target_port = 0

    async def start(self, target_port: int) -> str:
        """Listen on a port the system picks; returns the URL for the nodes."""
        self.target_port = target_port
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.close()
            return
        both = [
            asyncio.create_task(self._pass(reader, up_writer)),
            asyncio.create_task(self._pass(up_reader, writer)),
        ]
        self._tasks.update(both)
        for task in both:
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        counter = MessageCounter()
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                self.frames_seen += counter.feed(chunk)
                tail = self._look(tail, chunk)
                writer.write(chunk)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    def _look(self, tail: bytes, chunk: bytes) -> bytes:
        """Count canaries in what is new; returns what the next look needs."""
        seen = tail + chunk
        for match in self._needle.finditer(seen):
            # What ended within the tail was counted before.
            if match.end() > len(tail):
                if match[0] == self._control:
                    self.control_found += 1
                else:
                    self.plaintext_found += 1
        return seen[-self._keep :]

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        await end_jobs(self._tasks)
