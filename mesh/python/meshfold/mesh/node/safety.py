"""What keeps a running node safe: policy, key packets, frames that wait for keys, its lives, and what it must remember.

It listens on its key subject and on the voters' policy subject, and ticks once a second. The parts that decide are the
security room's; here is only when they are asked and what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from meshfold.core import Address
from meshfold.core.errors import ConfigError, FrameRejected, KeyMissing, NoQuorum
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message, Subscribed, Transport
from meshfold.core.registry import FrameKind
from meshfold.mesh.bridge.park import Park
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.enrolment.memory import NodeMemory
from meshfold.mesh.node.audit import AuditFile
from meshfold.mesh.node.members import Directory
from meshfold.mesh.records import Heartbeat
from meshfold.mesh.subjects import Subjects
from meshfold.security import (
    Identity,
    Keyring,
    NodeKeys,
    Opener,
    PolicyKeeper,
    PolicyRecord,
    StartRecord,
)

__all__ = ("Safety",)

TICK_S: Final = 1.0
#: Keys that are missing are asked for at most so often.
ASK_AGAIN_S: Final = 0.25
#: How long after a new wrapping key the one before it opens what was on its way: longer than any answer may take.
WRAP_OVERLAP_S: Final = 120.0


class Safety:
    """One session's. `changed` is told of every newer policy, `lacking` when keys should be asked for."""

    def __init__(
        self,
        identity: Identity,
        keys: NodeKeys,
        keyring: Keyring,
        directory: Directory,
        transport: Transport,
        subjects: Subjects,
        hlc: HybridClock,
        *,
        voters: tuple[Identity, ...],
        memory: NodeMemory,
        reject: Callable[[str, str], None],
        changed: Callable[[PolicyRecord], None],
        lacking: Callable[[], None],
        problem: Callable[[str], None],
        audit: AuditFile,
    ) -> None:
        self._identity = identity
        self._keys = keys
        self._keyring = keyring
        self._directory = directory
        self._transport = transport
        self._subjects = subjects
        self._hlc = hlc
        self._voters = {voter.tag: voter for voter in voters}
        self._memory = memory
        self._reject = reject
        self._changed = changed
        self._lacking = lacking
        self._problem = problem
        self._audit = audit
        self._kept = False
        self._asked_ms = 0
        #: when the wrapping key before the newest is forgotten; None: there is none
        self._old_wrap_ends_ms: int | None = None
        self._job: asyncio.Task[None] | None = None
        self.opener: Opener | None = None
        self.park = Park()
        self.start_record: StartRecord | None = None
        self.wrap_record = b""
        self.subscriptions: tuple[Subscribed, ...] = ()
        self.keeper = PolicyKeeper(identity.cluster, lambda: self._voters, self._save_policy)

    def mono_ms(self) -> int:
        """The monotonic clock, ms."""
        return self._hlc.clock.now()[1] // 1_000_000

    def begin(self, opener: Opener, incarnation: bytes, *, keep: bool) -> None:
        """Take up what earlier lives left, and order this one after them. Before anything is sent.

        :param keep: False for a life that only asks: it leaves no trace, and another may be going on
        :raises ConfigError: if this node runs in another process, or what it remembers is damaged
        """
        self.opener = opener
        if keep:
            self._memory.hold()
            self._kept = True
            self.start_record = self._memory.begin(self._keys, self._identity.cluster, incarnation, self._hlc)
            opener.starts.note(self.start_record)
            opener.restore_windows(self._memory.windows(), self.start_record.hlc)
            self._memory.save_windows(opener.replay.save(clean=False))
        wrap = self._memory.wrap(self._keys, self._identity.cluster)
        if wrap is not None and wrap.wrap_pub == self._keys.wrap_pub:
            self.wrap_record = wrap.raw
        saved = self._memory.policy()
        if saved is not None:
            try:
                self.keeper.restore(saved, self.mono_ms())
            except FrameRejected as error:
                raise ConfigError(
                    f"the policy this node remembers is damaged: {error}",
                    fix="remove the file `policy` in its folder, and start it where a voter answers",
                    item="policy",
                ) from None
            self._apply(self.keeper.record)

    def _save_policy(self, raw: bytes) -> None:
        if self._kept:
            self._memory.save_policy(raw)

    async def listen(self) -> None:
        """Hear key packets and policy, and begin to tick."""
        self.subscriptions = (
            await self._transport.subscribe(self._subjects.node("k", self._identity.tag), self._on_packet),
            await self._transport.subscribe(self._subjects.every("p"), self._on_policy),
        )
        self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Once a second: what was parked too long goes, as does a replaced wrapping key; windows are written."""
        self.park.expire(self.mono_ms())
        if self._old_wrap_ends_ms is not None and self.mono_ms() >= self._old_wrap_ends_ms:
            self._old_wrap_ends_ms = None
            self._keys.drop_old_wrap()
        if self._kept and self.opener is not None:
            try:
                self._memory.save_windows(self.opener.replay.save(clean=False))
                self._audit.flush()
            except OSError as error:
                self._problem(f"replay windows or audit log not written: {error.strerror}")

    def _on_packet(self, message: Message) -> None:
        try:
            self.install(message.data)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
        if len(self.park):
            self.lack()

    def install(self, packet: bytes) -> None:
        """Take in a key packet; frames that waited for it go on.

        :raises FrameRejected: as `Keyring.install`
        """
        self._keyring.install(packet, self._voters)
        self.park.release()

    def _on_policy(self, message: Message) -> None:
        try:
            assert self.opener is not None
            opened = self.opener.open_members(message.data, message.subject)
            if opened.header.kind is not FrameKind.POLICY or opened.sender.tag not in self._voters:
                raise FrameRejected("member", "a policy from no voter")
            self.take(opened.body)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            if error.fields.get("jump"):
                self._lacking()
        except KeyMissing:
            self._reject("epoch", message.subject)
            self.lack()

    def take(self, raw: bytes, *, fresh: bool = False) -> None:
        """Take a policy record in.

        :raises FrameRejected: as `PolicyKeeper.take`; nothing changed then
        """
        stalled = not self.may_send()
        if self.keeper.take(raw, self.mono_ms(), fresh=fresh):
            self._apply(self.keeper.record)
        elif stalled:
            self._changed(self.keeper.record)

    def _apply(self, record: PolicyRecord) -> None:
        now_ms = self._hlc.now_ms()
        try:
            self._keyring.set_epochs(record.epochs, record.suite, now_ms)
        except FrameRejected as error:
            # Two keys for one place: the voters' word and a key from one of them. Neither is used until it is known why.
            self._problem(f"ALARM: {error}")
            self._reject(error.reason, "policy")
            self._keyring.erase()
        if self.opener is not None:
            self.opener.starts.decide(record.decided)
        self._erase_shredded(record)
        self._changed(record)
        self.park.release()

    def _erase_shredded(self, record: PolicyRecord) -> None:
        """Epochs that the voters shredded are erased here, and with them the key that would open recorded packets."""
        names = {f"{'.'.join(one.path)} {one.epoch}": one for one in record.epochs.raises if one.shredded}
        fresh = frozenset(names) - self._memory.shredded()
        if not fresh or not self._kept:
            return
        for name in fresh:
            self._keyring.forget(names[name].path, names[name].vector)
        self.wrap_record = self._memory.rotate_wrap(self._keys, self._identity.cluster).raw
        self._old_wrap_ends_ms = self.mono_ms() + int(WRAP_OVERLAP_S * 1000)
        self._memory.note_shredded(fresh)

    def heard(self, sender: Identity, incarnation: bytes, heartbeat: Heartbeat, *, sees_us: bool) -> None:
        """Take in what a heartbeat says of its sender's lives, keys and counters.

        :raises FrameRejected: if a record in it does not hold
        """
        assert self.opener is not None
        if sender.tag == self._identity.tag and heartbeat.start and self._kept:
            self._problem(f"ALARM: another process is this node, in its life {incarnation.hex()}")
        if heartbeat.start:
            self._note_start(sender, incarnation, heartbeat.start)
        if heartbeat.wrap:
            self._directory.take_wrap(sender.tag, heartbeat.wrap)
        floors = {Address.parse(one.address): (one.generation, one.frame_ctr) for one in heartbeat.routes}
        self.opener.checkpoint(sender.tag, incarnation, floors)
        if sees_us and self.opener.replay.guarded:
            self.opener.replay.prove(
                sender.tag, incarnation, {address.digest: floor for address, floor in floors.items()}
            )

    def _note_start(self, sender: Identity, incarnation: bytes, raw: bytes) -> None:
        assert self.opener is not None
        newest = self.opener.starts.newest(sender.tag)
        if newest is not None and newest.raw == raw:
            return
        record = StartRecord.parse(raw, cluster=self._identity.cluster)
        if record.node_pub != sender.node_pub or record.incarnation != incarnation:
            raise FrameRejected("incarnation", "the start of another life")
        self.opener.starts.note(record)

    def has_shredded(self, name: str) -> bool:
        """Whether an epoch, `address epoch`, is erased here."""
        return name in self._memory.shredded()

    def lack(self) -> None:
        """Ask the voters for keys, soon and not too often."""
        now_ms = self.mono_ms()
        if now_ms - self._asked_ms >= ASK_AGAIN_S * 1000:
            self._asked_ms = now_ms
            self._lacking()

    def may_send(self) -> bool:
        """Whether what runs may go on without a voter's word."""
        return self.keeper.in_grace(self.mono_ms()) or not self._voters

    def require_fresh(self) -> None:
        """Return if new sessions may be opened.

        :raises NoQuorum: if no voter's word on the policy was heard for 30 s
        """
        if not self.keeper.fresh(self.mono_ms()):
            raise NoQuorum(
                "no voter has told the policy for 30 s, so nothing new is opened",
                fix="is a voter running? `meshfold status` shows who is here",
                group="control",
            )

    async def close(self) -> None:
        """Write the windows as those of a clean stop."""
        if self._job is not None:
            await end_jobs((self._job,))
        if self._kept and self.opener is not None:
            with contextlib.suppress(OSError):
                self._memory.save_windows(self.opener.replay.save(clean=True))
                self._audit.flush()
        self._memory.release()
