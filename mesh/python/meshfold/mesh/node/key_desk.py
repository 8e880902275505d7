"""What a voter answers about keys, and what it tells unasked: rotate, shred, list, decide; the policy every five seconds.

Changes ask for KEY_ADMIN. The work is the keymaster's; here are the questions, the sending, and the schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from meshfold.core import Address
from meshfold.core.errors import (
    KeyMissing,
    MeshfoldError,
    NoQuorum,
    NotLeader,
    TransportClosed,
    WiringError,
)
from meshfold.core.jobs import end_jobs
from meshfold.core.registry import Action, FrameKind
from meshfold.mesh.node.control import Control
from meshfold.mesh.node.election_desk import require_action
from meshfold.mesh.node.queries import Answering
from meshfold.security import Identity
from meshfold.security.capability import check_pattern
from meshfold.security.key_tree import path_of
from meshfold.security.policy_keeper import HEARTBEAT_MS

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("KeyDesk",)

CONFIRM_S: Final = 2.0
CONFIRM_TRIES: Final = 10
#: Revocations of what has ended by itself since are left out of the policy so often.
PRUNE_MS: Final = 6 * 3_600_000


class KeyDesk:
    """A voter's, in one session."""

    def __init__(self, control: Control, session: Session) -> None:
        self._control = control
        self._session = session
        self._job: asyncio.Task[None] | None = None
        control.keymaster.send_packet = self._send_packet
        control.keymaster.tell = self._tell

    def register(self, responder: Answering) -> None:
        """Answer the questions about keys."""
        responder.answers("key_ls", self.listing)
        responder.answers("key_rotate", self.rotate)
        responder.answers("key_shred", self.shred)
        responder.answers("key_declare", self.declare)
        responder.answers("node_decide", self.decide)

    def start(self) -> None:
        """Begin to tell the policy, and to rotate what is due."""
        self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        pruned_ms = self._session.hlc.now_ms()
        while True:
            # Another voter may lead, or none: then it is not ours to tell, or to change anything.
            with contextlib.suppress(TransportClosed, KeyMissing, NotLeader, NoQuorum):
                await self._control.keymaster.lead()
                await self._control.keymaster.publish()
            await asyncio.sleep(HEARTBEAT_MS / 1000)
            self._count_sealed()
            if not self._control.leads:
                continue
            await self._rotate_due()
            if self._session.hlc.now_ms() - pruned_ms > PRUNE_MS:
                pruned_ms = self._session.hlc.now_ms()
                await self._prune()

    async def _prune(self) -> None:
        try:
            await self._control.keymaster.prune(self._session.hlc.now_ms())
        except MeshfoldError as error:
            self._session.ledger.problems.append(f"ended revocations not left out: {error}")

    def _count_sealed(self) -> None:
        plan = self._control.keymaster.plan
        for tag in self._session.directory.tags():
            heartbeat, life = self._session.directory.last(tag), self._session.directory.incarnation(tag)
            if heartbeat is None or life is None:
                continue
            for route in heartbeat.routes:
                frames = (route.generation << 24) + route.frame_ctr // 2
                plan.sealed(Address.parse(route.address).tokens, tag, life, frames)

    async def _rotate_due(self) -> None:
        plan = self._control.keymaster.plan
        for path in plan.due(self._session.hlc.now_ms()):
            try:
                await self._control.keymaster.rotate(path)
            except MeshfoldError as error:
                self._session.ledger.problems.append(f"{'.'.join(path) or '>'} not rotated: {error}")

    async def _send_packet(self, tag: bytes, packet: bytes) -> None:
        if tag == self._session.identity.tag:
            self._session.safety.install(packet)
            return
        await self._session.transport.publish(self._session.subjects.node("k", tag), packet)

    async def _tell(self, raw: bytes) -> None:
        session = self._session
        if session.upkeep.grants:
            # Our own first: this node seals and opens like everyone.
            session.safety.install(
                self._control.keymaster.packet_for(
                    session.identity, session.book.grants_of(session.identity.tag)
                )
            )
        session.safety.take(raw, fresh=True)
        subject = session.subjects.node("p", session.identity.tag)
        frame = session.sealer.seal_members(
            FrameKind.POLICY, raw, hlc=session.hlc.stamp(), policy_epoch=session.policy_epoch, subject=subject
        )
        await session.transport.publish(subject, frame)

    def _admin(self, asker: Identity, what: str) -> None:
        require_action(self._session.book, asker, Action.KEY_ADMIN, what)

    @staticmethod
    def _path(args: dict[str, Any]) -> tuple[str, ...]:
        text = str(args.get("route", ""))
        if text.endswith(">"):
            check_pattern(text)
            return path_of(text)
        return Address.parse(text).tokens

    async def listing(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `key_ls`: every raised node with its epochs. Nothing in it is secret."""
        self._admin(asker, "list key epochs")
        record = self._control.keymaster.record
        rows = [
            {
                "node": ".".join(one.path) + (".>" if len(one.path) < 6 else "") if one.path else ">",
                "epoch": one.epoch,
                "epochs": list(one.vector),
                "since_ms": one.activate_ms,
                "policy_epoch": one.policy_epoch,
                "shreddable": one.shreddable,
                "shredded": one.shredded,
            }
            for one in record.epochs.raises
        ]
        return {"epochs": rows, "policy_epoch": record.policy_epoch, "suite": record.suite}

    async def rotate(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `key_rotate`: a new epoch for a route or a prefix."""
        self._admin(asker, "rotate keys")
        keymaster = self._control.keymaster
        before = keymaster.packets
        path = self._path(args)
        record = await keymaster.rotate(path)
        last = record.epochs.raises[-1]
        return {
            "node": ".".join(last.path) or ">",
            "epoch": last.epoch,
            "since_ms": last.activate_ms,
            "packets": keymaster.packets - before,
        }

    async def declare(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `key_declare`: the owner of a route takes it out of the tree, because it shall be shreddable."""
        address = Address.parse(str(args.get("route", "")))
        self._session.book.require(asker.tag, Action.OWN, address)
        await self._control.keymaster.declare_shreddable(address)
        return {}

    async def shred(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `key_shred`: erase an epoch of a shreddable route here and at every grantee; who has not confirmed.

        :raises WiringError: if the route is not shreddable
        """
        self._admin(asker, "shred keys")
        address = Address.parse(str(args.get("route", "")))
        try:
            epoch = int(args.get("epoch", -1))
        except (TypeError, ValueError):
            raise WiringError(f"{args.get('epoch')!r} is no epoch", item="epoch") from None
        await self._control.keymaster.shred(address, epoch)
        name = f"{address.text} {epoch}"
        confirmed: list[str] = [self._session.name] if self._session.safety.has_shredded(name) else []
        missing: list[str] = []
        for tag in self._session.book.holders():
            identity = self._session.directory.lookup(tag)
            if tag == self._session.identity.tag or not self._reads(tag, address):
                continue
            label = identity.name if identity is not None else tag.hex()
            done = identity is not None and await self._confirms(identity, name)
            (confirmed if done else missing).append(label)
        return {
            "route": address.short,
            "epoch": epoch,
            "confirmed": sorted(set(confirmed)),
            "unconfirmed": sorted(set(missing)),
        }

    async def _confirms(self, grantee: Identity, name: str) -> bool:
        """Whether a grantee says that an epoch is erased; the word to do so may still be on its way."""
        if not self._session.directory.alive(grantee.tag):
            return False
        for _ in range(CONFIRM_TRIES):
            try:
                answer = await self._session.asker.ask(grantee, "shredded", {"name": name}, CONFIRM_S)
            except MeshfoldError:
                return False
            if answer["done"]:
                return True
            await asyncio.sleep(CONFIRM_S / CONFIRM_TRIES)
        return False

    def _reads(self, tag: bytes, address: Address) -> bool:
        actions = (Action.META_READ, Action.PAYLOAD_OPEN, Action.OWN, Action.DEBUG_READ)
        return any(self._session.book.decide(tag, action, address).allowed for action in actions)

    async def decide(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `node_decide`: let one life of a node go on, of which two copies were seen."""
        self._admin(asker, "decide between two copies of a node")
        identity = self._session.directory.by_name(str(args.get("node_name", "")))
        if identity is None:
            raise WiringError(
                f"no member named {args.get('node_name')!r}", fix="`meshfold status` lists them"
            )
        incarnation = bytes.fromhex(str(args.get("incarnation", "")))
        if len(incarnation) != 8:
            raise WiringError(
                "an incarnation has 16 hex digits", fix="`meshfold status` shows them", item="incarnation"
            )
        record = await self._control.keymaster.decide_clone(identity.tag, incarnation)
        return {"policy_epoch": record.policy_epoch}

    async def close(self) -> None:
        """Stop telling."""
        if self._job is not None:
            await end_jobs((self._job,))
