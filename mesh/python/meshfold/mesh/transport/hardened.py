"""nats-py with its faults covered. Each override names the fault (TRANSPORT F1-F6), so that it can go when upstream does."""

from __future__ import annotations

import asyncio
from typing import Any

from nats import errors
from nats.aio.client import Client

__all__ = ("HardenedClient",)

HEADER_BYTES_MIN = len(b"NATS/1.0\r\n\r\n")


class HardenedClient(Client):
    """A client whose read loop no message can end, and that never falls back to plaintext."""

    tls_wanted = False

    async def _process_headers(self, headers: Any) -> Any:
        # F1: a header block shorter than the version line, or not UTF-8, ended the reader.
        if headers and (len(headers) < HEADER_BYTES_MIN or not headers.startswith(b"NATS/1.0")):
            raise ValueError("malformed header block")
        return await super()._process_headers(headers)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        # F1: a subject or reply that is no UTF-8 ended the reader.
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a peer's bytes cause stays with that message
            await self._error_cb(errors.Error(f"malformed message dropped: {type(error).__name__}"))

    async def _process_pong(self) -> None:
        # F2: a pong for a flush that was cancelled or timed out ended the reader.
        self._pings_outstanding = 0
        self._pongs_received += 1
        if self._pongs:
            waiting = self._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)

    async def _send_ping(self, future: Any = None) -> None:
        # F3: PING overtook buffered publishes; through the pending queue it is a barrier.
        if future is None:
            future = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        await self._send_command(b"PING\r\n")
        await self._flush_pending()

    def _connect_command(self) -> bytes:
        # nats-py falls back to plaintext, credentials included, where the server offers no TLS.
        if self.tls_wanted and not self._server_info.get("tls_required"):
            raise errors.Error("the server offers no TLS")
        return super()._connect_command()

    async def ping(self, answered: asyncio.Future[bool]) -> None:
        """Send a PING behind everything published; `answered` is set by its PONG."""
        await self._send_ping(answered)

    def use_nkey(self, public: str) -> None:
        """Log in by this public key; the signature callback proves it. nats-py itself would need another library."""
        self._public_nkey = public

    async def hang_up(self) -> None:
        """Close, the socket of a failed first connect included, which `close` leaves open."""
        await self.close()
        transport: Any = self._transport
        if transport is not None:
            transport.close()
            if transport._io_writer is not None:
                transport._io_writer.transport.abort()
            # asyncio closes the socket in the next round of the loop.
            await asyncio.sleep(0)

    def server_info(self) -> dict[str, Any]:
        """What the server said of itself."""
        return dict(self._server_info)

    def server_version(self) -> str:
        """Version text of the server, patch level included."""
        return str(self._server_info.get("version", "0.0.0"))
