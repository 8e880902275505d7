"""Where readers of a shared route tell how much they take: checks who speaks, and keeps the newest word of each."""

from __future__ import annotations

from collections.abc import Callable

from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.ports import Message, Subscribed, Transport
from meshfold.core.registry import FrameKind
from meshfold.mesh.bridge.credit import FarCredit
from meshfold.mesh.records import Credit, decode
from meshfold.mesh.subjects import Subjects
from meshfold.security import Opener

__all__ = ("CreditDesk",)


class CreditDesk:
    """Takes credit frames (kind 8) of one route of this node's life. What is not this life's changes nothing."""

    def __init__(
        self,
        address: Address,
        *,
        me: tuple[bytes, bytes],
        transport: Transport,
        opener: Opener,
        subjects: Subjects,
        may_read: Callable[[bytes, Address], bool],
        reject: Callable[[str, str], None],
    ) -> None:
        self.far = FarCredit()
        self._address = address
        self._me = me
        self._transport = transport
        self._opener = opener
        self._subjects = subjects
        self._may_read = may_read
        self._reject = reject
        self._changed: Callable[[], None] = lambda: None
        self._subscription: Subscribed | None = None

    async def start(self, changed: Callable[[], None]) -> None:
        """Listen; `changed` is called when more may leave."""
        self._changed = changed
        subject = self._subjects.route_any_site("c", self._address)
        self._subscription = await self._transport.subscribe(subject, self._on_message)

    def _on_message(self, message: Message) -> None:
        try:
            opened = self._opener.open_members(message.data, message.subject)
            if opened.header.kind != FrameKind.CREDIT:
                raise FrameRejected("kind", opened.header.kind.name)
            credit = decode(opened.body, Credit)
            sender = opened.sender
            if not self._may_read(sender.tag, self._address):
                raise FrameRejected("grant", f"{sender.name} may not read {self._address.short}")
            if (credit.producer, credit.incarnation) != self._me:
                return
            if not self.far.take(sender.tag, sender.name, opened.header.incarnation, credit):
                raise FrameRejected("limit", "readers that hold one route up")
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
        except KeyMissing:
            self._reject("epoch", message.subject)
        else:
            self._changed()

    def beat(self) -> None:
        """A heartbeat of ours goes out: a reader that answers none of them holds nobody up."""
        if self.far.beat():
            self._changed()

    async def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
