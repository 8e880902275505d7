"""A live subscription that can move from one connection to the next without losing or doubling a message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from meshfold.core.ports import Message, MessageHandler
from nats import errors

__all__ = ("NatsSubscription", "handed_over")

PENDING_MESSAGES_MAX = 65_536
PENDING_BYTES_MAX = 64 * 1024 * 1024

_log = logging.getLogger("meshfold.mesh.transport")


async def handed_over(inner: Any) -> None:
    """Return when nats-py has called back for everything that has arrived on a subscription of its."""
    if inner is not None:
        await inner._pending_queue.join()


class _Mark:
    """Stands in the queue of a subscription behind what has arrived, and calls back when its turn comes."""

    data = b""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call


class NatsSubscription:
    """Delivers to one handler. While it moves, the new connection's messages are held until the old one is drained;
    those that came on both are delivered once, and order per publisher is kept.
    """

    def __init__(
        self, subject: str, handler: MessageHandler, emit: Callable[[Any, str], None], counts: Counter[str]
    ) -> None:
        self._subject = subject
        self._handler = handler
        self._emit = emit
        self._counts = counts
        self._held: list[Message | _Mark] | None = None
        self._seen: Counter[tuple[str, bytes, str]] = Counter()
        self.inner: Any = None
        self.open = True

    @property
    def subject(self) -> str:
        """The subject or wildcard."""
        return self._subject

    async def close(self) -> None:
        """Stop delivery. Idempotent."""
        if self.open:
            self.open = False
            if self.inner is not None:
                with contextlib.suppress(errors.Error):
                    await self.inner.unsubscribe()

    def behind(self, call: Callable[[], None]) -> None:
        """Call `call` once everything that has arrived by now was handled; not at all if the queue is full.

        nats-py handles each subscription in a task of its own: without this, what stands before a message on the wire
        may be handled after it, if it is of another subscription.
        """
        queue = self.inner._pending_queue if self.inner is not None else None
        if self._held is not None:
            self._held.append(_Mark(call))
        elif not self.open or queue is None or queue.empty():
            call()
        else:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(_Mark(call))

    async def live(self, message: Any) -> None:
        """Callback of the connection in use."""
        if isinstance(message, _Mark):
            self._call(message)
            return
        taken = Message(message.subject, message.data, message.reply, message.headers or {})
        if self._held is not None:
            self._seen[taken.subject, taken.data, taken.reply] += 1
        self._deliver(taken)

    def moving(self) -> Callable[[Any], Awaitable[None]]:
        """Begin to move: return the callback for the next connection, which holds what arrives until `moved`."""
        mine: list[Message | _Mark] = []
        self._held = mine
        self._seen.clear()

        async def hold(message: Any) -> None:
            # Once moved, this connection is the one in use, also while the next move holds that of another.
            if self._held is not mine:
                await self.live(message)
            elif len(mine) < PENDING_MESSAGES_MAX:
                mine.append(Message(message.subject, message.data, message.reply, message.headers or {}))
            else:
                self._counts["dropped_slow"] += 1
                self._emit("slow_consumer", self._subject)

        return hold

    async def drain(self) -> None:
        """Take what the connection in use still delivers; on return it delivers nothing more."""
        if self.inner is not None:
            with contextlib.suppress(errors.Error, OSError):
                await self.inner.drain()

    def moved(self, inner: Any) -> None:
        """The next connection is the one in use: deliver what it brought that the last one did not."""
        held, self._held = self._held or [], None
        self.inner = inner
        for message in held:
            if isinstance(message, _Mark):
                self._call(message)
                continue
            slot = (message.subject, message.data, message.reply)
            if self._seen[slot] > 0:
                self._seen[slot] -= 1
            else:
                self._deliver(message)
        self._seen.clear()

    def stayed(self) -> None:
        """The move failed: forget it."""
        self._held = None
        self._seen.clear()

    def _deliver(self, message: Message) -> None:
        if not self.open:
            return
        self._counts["received"] += 1
        self._counts["bytes_received"] += len(message.data)
        self._guarded(lambda: self._handler(message))

    def _call(self, mark: _Mark) -> None:
        if self.open:
            self._guarded(mark.call)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - one message must not end the subscription
            _log.exception("handler of %s", self._subject)
            self._emit("handler_error", f"{self._subject}: {type(error).__name__}: {error}")
