"""The voter's hand on policy and keys: every change is one signed policy record in the control log, then told.

Order of a change: the record is signed and logged; whoever is entitled to a raised node gets a packet on its own key
subject; then the record goes out on the policy subject. One publisher, so packets come first wherever the order holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from meshfold.core import Address
from meshfold.core.errors import FrameRejected, NoQuorum, WiringError
from meshfold.core.ports import Versioned
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.node.cosigning import Cosigning
from meshfold.mesh.node.members import Directory
from meshfold.mesh.node.rotation import RotationPlan
from meshfold.mesh.node.shared_keys import PREFIX as KEYS_PREFIX
from meshfold.mesh.node.shared_keys import SharedKeys
from meshfold.mesh.node.voter_log import VoterLog
from meshfold.security import (
    Epochs,
    Grant,
    GrantBook,
    Identity,
    KeyTree,
    NodeKeys,
    PolicyRecord,
    Raise,
    voters_hash,
)
from meshfold.security.codec import Reader
from meshfold.security.epochs import DEPTH, OUTSIDE
from meshfold.security.key_tree import KEYED, path_of

__all__ = ("Keymaster", "follows")

#: A planned rotation begins so long after it is announced: packets are there before it.
LEAD_MS: Final = 500
RETRIES_MAX: Final = 8
POLICY_KEY: Final = "policy"
#: What ended so long ago is left out of the policy: no clock of the mesh is so far behind.
ENDED_MS: Final = 3_600_000
#: Before the place of a raise in the log: every one there ever was, for grants that open earlier epochs.
PAST_PREFIX: Final = "epochs/"
#: So many are remembered; keys of epochs before those open nothing any more.
PAST_MAX: Final = 16_384
Path = tuple[str, ...]


def follows(old: PolicyRecord, new: PolicyRecord, ended: frozenset[bytes] = frozenset()) -> bool:
    """Whether a record may take another's place: nothing is unsaid but what `ended` by itself, and no epoch falls."""
    if new.rank <= old.rank or not old.revoked <= new.revoked | ended or new.suite != old.suite:
        return False
    paths = {one.path for one in old.epochs.raises}
    return all(
        old.epochs.timeline(path)[-1][1] <= new.epochs.timeline(path)[-1][1]
        for path in paths
        if not (len(path) == DEPTH and old.epochs.outside(path))
    )


class Keymaster:
    """Changes the policy record, and sends what follows from it. One change at a time."""

    def __init__(
        self,
        log: VoterLog,
        tree: KeyTree,
        keys: NodeKeys,
        identity: Identity,
        book: GrantBook,
        directory: Directory,
        hlc: HybridClock,
    ) -> None:
        self._log = log
        self.tree = tree
        self._keys = keys
        self._identity = identity
        self._book = book
        self._directory = directory
        self._hlc = hlc
        self._changing = asyncio.Lock()
        self._version = 0
        self.voters: tuple[Identity, ...] = (identity,)
        self.record = PolicyRecord(identity.cluster, voters_hash(self.voters), 0, 0)
        self.plan = RotationPlan()
        self._past: list[Raise] = []
        #: sends a packet to a node; set by the session
        self.send_packet: Callable[[bytes, bytes], Awaitable[None]] | None = None
        #: tells everyone the record; set by the session
        self.tell: Callable[[bytes], Awaitable[None]] | None = None
        #: the other voters, where there are any; set by `share`
        self._cosigning: Cosigning | None = None
        self._shared = SharedKeys(tree.store, log)
        self._leading = asyncio.Lock()
        #: the term in which this voter has made sure that it has everything
        self._led_term = 0
        #: packets made since the start
        self.packets = 0

    async def restore(self, voters: tuple[Identity, ...]) -> None:
        """Take up what the log holds; sign it anew if the set of voters has changed."""
        self.voters = voters
        saved = await self._log.get(POLICY_KEY)
        if saved is not None:
            self.record = PolicyRecord.parse(saved.value)
            self._version = saved.version
        if saved is None or self.record.voters != voters_hash(voters):
            await self.change(lambda record: record)
        else:
            self._book.set_policy(self.record.policy)
        await self._remember()
        self.erase_shredded(self.record)

    def share(self, voters: tuple[Identity, ...], cosigning: Cosigning) -> None:
        """Be one of several voters from now on."""
        self.voters, self._cosigning = voters, cosigning

    async def lead(self) -> None:
        """Return when this voter may decide: it leads, its record is the log's, and every key that the log notes is here.

        A single voter always may.

        :raises NotLeader: if another voter leads
        :raises NoQuorum: if no majority answers, or a key is on none of those that do
        """
        if self._cosigning is None:
            return
        async with self._leading:
            self._take(await self._log.get(POLICY_KEY))
            term = self._log.status().term
            if term == self._led_term:
                return
            noted = SharedKeys.read(await self._log.snapshot(KEYS_PREFIX), self.record.epochs)
            await self._cosigning.fetch(noted)
            self.erase_shredded(self.record)
            self.tree.store.draw_roots(0)
            if not self.tree.store.members():
                self.tree.store.draw_members(0, 0)
            if self._version == 0 or self.record.voters != voters_hash(self.voters):
                await self._change(lambda record: record)
            await self._remember()
            self._led_term = term

    def _take(self, saved: Versioned | None) -> None:
        """Go on from what the log holds."""
        if saved is not None and saved.version != self._version:
            self.record, self._version = PolicyRecord.parse(saved.value), saved.version
            self._book.set_policy(self.record.policy)

    def applied(self) -> PolicyRecord:
        """The record as far as this voter has applied the log: the newest may be missing."""
        saved = self._log.state.values.get(POLICY_KEY)
        return PolicyRecord.parse(saved.value) if saved is not None else self.record

    def erase_shredded(self, record: PolicyRecord) -> None:
        """Erase the keys that the voters shredded, as every voter does that hears of it."""
        for one in record.epochs.raises:
            if one.shredded and self.tree.store.holds_outside("m", one.path, one.epoch):
                self.tree.store.shred(one.path, one.epoch)

    async def _remember(self) -> None:
        """Keep the raises of the record beyond the time it needs them: it leaves out what no live frame can be under."""
        saved = await self._log.snapshot(PAST_PREFIX)
        for one in self.record.epochs.raises:
            key = f"{PAST_PREFIX}{one.activate_ms:016d}/{'.'.join(one.path) or '>'}/{one.epoch}"
            raw = one.encode()
            if key not in saved or saved[key].value != raw:
                await self._log.put(key, raw)
        saved = await self._log.snapshot(PAST_PREFIX)
        for key in sorted(saved)[:-PAST_MAX]:
            await self._log.delete(key)
        self._past = [Raise.read(Reader(saved[key].value)) for key in sorted(saved)[-PAST_MAX:]]

    async def change(self, make: Callable[[PolicyRecord], PolicyRecord]) -> PolicyRecord:
        """Replace the record: signed by a majority and logged on return.

        :raises NotLeader: if another voter leads
        :raises NoQuorum: if no majority signed it, or it could not be logged
        """
        await self.lead()
        return await self._change(make)

    async def _change(self, make: Callable[[PolicyRecord], PolicyRecord]) -> PolicyRecord:
        floor = (0, 0)
        async with self._changing:
            for _ in range(RETRIES_MAX):
                old = self.record
                # Where others have signed a record that came to nothing, ours goes above it.
                made = make(replace(old, policy_epoch=max(old.policy_epoch, floor[0])))
                log_index = max(old.log_index, floor[1]) + 1
                new = replace(made, log_index=log_index, voters=voters_hash(self.voters), signatures=())
                if self._cosigning is None:
                    new = replace(new, signatures=(self.sign(new),))
                else:
                    signed, floor = await self._cosigning.collect(new)
                    if signed is None:
                        continue
                    new = signed
                    # A majority holds the keys: from here on they are the mesh's.
                    await self._shared.note()
                index = await self._log.compare_and_set(POLICY_KEY, new.encode(), self._version)
                if index is not None:
                    self.record, self._version = new, index
                    self._book.set_policy(new.policy)
                    if new.epochs != old.epochs:
                        await self._remember()
                    return new
                saved = await self._log.get(POLICY_KEY)
                if saved is not None:
                    self.record, self._version = PolicyRecord.parse(saved.value), saved.version
        raise NoQuorum("the policy was changed by others all the time", group="control")

    def sign(self, record: PolicyRecord) -> tuple[bytes, bytes]:
        """This voter's signature, without any question; `Cosigning` asks them."""
        return record.sign(self._keys)

    def packet_for(self, grantee: Identity, grants: Iterable[Grant]) -> bytes:
        """A key packet."""
        self.packets += 1
        return self.tree.packet(
            self._keys,
            self._identity,
            grantee,
            grants,
            hlc=self._hlc.stamp(),
            epochs=self.record.epochs,
            past=self._past,
        )

    def _raised(self, epochs: Epochs, path: Path, policy_epoch: int, activate_ms: int) -> Epochs:
        """Epochs with one node raised; the root's next keys are drawn first."""
        now_ms = self._hlc.now_ms()
        if len(path) == DEPTH and epochs.outside(path):
            return self._raised_outside(epochs, path, policy_epoch, activate_ms)
        node, vector = epochs.next_of(path)
        if not self.tree.store.has_root(vector[0]):
            self.tree.store.draw_roots(vector[0])
        kc = self.tree.commitments(node, vector)
        return epochs.with_raise(
            Raise(node, vector[-1], activate_ms, policy_epoch, kc, above=vector[:-1]), now_ms
        )

    def _raised_outside(self, epochs: Epochs, path: Path, policy_epoch: int, activate_ms: int) -> Epochs:
        known = [one.epoch for one in epochs.raises if one.shreddable and one.path == path]
        epoch = max(known, default=0) + 1
        self.tree.store.draw_outside(path, epoch)
        kc = self.tree.outside_commitments(path, (OUTSIDE,) * DEPTH + (epoch,))
        one = Raise(path, epoch, activate_ms, policy_epoch, kc, shreddable=True)
        return epochs.with_raise(one, self._hlc.now_ms())

    def _stamped_ms(self) -> int:
        """Now by our stamps, which may run ahead of the wall clock: keys begin by stamps, and the word of a change has to
        go out under the keys from before it."""
        return self._hlc.stamp() >> 16

    async def rotate(self, path: Path, *, lead_ms: int = LEAD_MS) -> PolicyRecord:
        """Raise a node: announced, sent, told."""
        at_ms = self._stamped_ms() + lead_ms

        def raised(record: PolicyRecord) -> PolicyRecord:
            return replace(record, epochs=self._raised(record.epochs, path, record.policy_epoch, at_ms))

        record = await self.change(raised)
        self.plan.rotated(path, self._hlc.now_ms())
        await self._announce([path], members=False)
        return record

    async def revoke(self, items: Iterable[bytes], grant: Grant | None) -> PolicyRecord:
        """Revoke grants or keys: the policy epoch rises, and what the grant opened is under new keys at once."""
        gone, ended = frozenset(items), await self.ended(self._hlc.now_ms())
        paths: list[Path] = self._paths_of(grant) if grant is not None else [()]
        holder_left = grant is not None and all(
            one.hash == grant.hash for one in self._book.grants_of(grant.tag)
        )

        def revoked(record: PolicyRecord) -> PolicyRecord:
            epoch = record.policy_epoch + 1
            epochs = record.epochs
            for path in paths:
                epochs = self._raised(epochs, path, epoch, self._hlc.now_ms())
            for path in self._outside_below(epochs, paths):
                epochs = self._raised(epochs, path, epoch, self._hlc.now_ms())
            return replace(record, policy_epoch=epoch, revoked=record.revoked - ended | gone, epochs=epochs)

        if holder_left:
            # Before the record: whoever signs it holds the members' next key, too.
            epoch, _, _ = self.tree.store.members()[-1]
            self.tree.store.draw_members(epoch + 1, self._stamped_ms() + LEAD_MS)
        record = await self.change(revoked)
        await self._announce(paths, members=holder_left)
        return record

    async def ended(self, now_ms: int) -> frozenset[bytes]:
        """What is revoked and would not hold any more if it were not: it need not be named for ever.

        A link ends at its time. A key ends when its identity and every grant that it stands in have.
        """
        await self.lead()
        grants, members = await self._log.snapshot("grant/"), await self._log.snapshot("member/")
        return self._ended(self.record, now_ms, grants, members)

    @staticmethod
    def _ended(
        record: PolicyRecord, now_ms: int, grants: Mapping[str, Versioned], members: Mapping[str, Versioned]
    ) -> frozenset[bytes]:
        revoked, before_ms = record.revoked, now_ms - ENDED_MS
        last: dict[bytes, int] = {}
        for saved in grants.values():
            for link in Grant.parse(saved.value).links:
                for item in {link.hash, link.subject_pub, link.issuer_pub} & revoked:
                    last[item] = max(last.get(item, 0), link.not_after_ms)
        for saved in members.values():
            identity = Identity.parse(saved.value)
            if identity.node_pub in revoked:
                last[identity.node_pub] = max(last.get(identity.node_pub, 0), identity.not_after_ms)
        return frozenset(item for item, at_ms in last.items() if at_ms < before_ms)

    async def prune(self, now_ms: int) -> bool:
        """Leave out of the policy what has ended by itself; whether anything had."""
        ended = await self.ended(now_ms)
        if not ended:
            return False
        await self.change(
            lambda record: replace(
                record, policy_epoch=record.policy_epoch + 1, revoked=record.revoked - ended
            )
        )
        await self.publish()
        return True

    @staticmethod
    def _paths_of(grant: Grant) -> list[Path]:
        """The nodes whose keys a grant gave, none below another."""
        paths = {path_of(one.pattern) for one in grant.capabilities if one.actions & KEYED}
        return sorted(
            path
            for path in paths
            if not any(path != other and path[: len(other)] == other for other in paths)
        )

    @staticmethod
    def _outside_below(epochs: Epochs, paths: list[Path]) -> list[Path]:
        """Routes outside the tree that raised nodes would cover, were they in it."""
        outside = {one.path for one in epochs.raises if one.shreddable}
        return sorted(
            one for one in outside if any(one != path and one[: len(path)] == path for path in paths)
        )

    async def declare_shreddable(self, address: Address) -> PolicyRecord:
        """Take a route out of the tree: from now on its keys are drawn, not derived."""
        if self.record.epochs.outside(address.tokens):
            return self.record
        now_ms = self._hlc.now_ms()

        def declared(record: PolicyRecord) -> PolicyRecord:
            epochs = self._raised_outside(record.epochs, address.tokens, record.policy_epoch, now_ms)
            return replace(record, epochs=epochs)

        record = await self.change(declared)
        await self._announce([address.tokens], members=False)
        return record

    async def shred(self, address: Address, epoch: int) -> PolicyRecord:
        """Make an epoch of a shreddable route unreadable: a newer one takes its place first, then its keys are erased.

        :raises WiringError: if the route is not shreddable, or has no such epoch
        """
        path = address.tokens
        if not self.record.epochs.outside(path):
            raise WiringError(
                f"{address.short} derives its keys from the tree, so no epoch of it can be shredded alone",
                fix="declare the route with shreddable=True",
                item=address.short,
            )
        known = [one for one in self.record.epochs.raises if one.shreddable and one.path == path]
        if epoch not in {one.epoch for one in known}:
            raise WiringError(f"{address.short} has no epoch {epoch}", item=address.short)
        if epoch == max(one.epoch for one in known):
            await self.rotate(path, lead_ms=0)

        def shredded(record: PolicyRecord) -> PolicyRecord:
            raises = tuple(
                replace(one, kc=(bytes(32),) * 3)
                if one.shreddable and one.path == path and one.epoch == epoch
                else one
                for one in record.epochs.raises
            )
            return replace(record, policy_epoch=record.policy_epoch + 1, epochs=Epochs(raises))

        record = await self.change(shredded)
        self.erase_shredded(record)
        await self.publish()
        return record

    async def decide_clone(self, tag: bytes, incarnation: bytes) -> PolicyRecord:
        """Let one of two copies of a node go on."""

        def decided(record: PolicyRecord) -> PolicyRecord:
            kept = tuple(one for one in record.decided if one[0] != tag)
            return replace(
                record,
                policy_epoch=record.policy_epoch + 1,
                decided=tuple(sorted((*kept, (tag, incarnation)))),
            )

        record = await self.change(decided)
        await self.publish()
        return record

    async def _announce(self, paths: list[Path], *, members: bool) -> None:
        """Packets to whoever is entitled at or below a raised node, then the record to everyone."""
        if self.send_packet is not None:
            for tag in self._directory.tags():
                grantee = self._directory.lookup(tag)
                grants = self._book.grants_of(tag)
                if grantee is None or not grants or not self._directory.alive(tag):
                    continue
                if members or self._concerned(grants, paths):
                    await self.send_packet(tag, self.packet_for(grantee, grants))
        await self.publish()

    def _concerned(self, grants: list[Grant], paths: list[Path]) -> bool:
        """Whether new keys have to be wrapped: who holds an ancestor derives them. Outside the tree nothing derives."""
        held = [path_of(one.pattern) for grant in grants for one in grant.capabilities if one.actions & KEYED]
        for path in paths:
            outside = len(path) == DEPTH and self.record.epochs.outside(path)
            for own in held:
                if own[: len(path)] == path or (outside and path[: len(own)] == own):
                    return True
        return bool(self._outside_below(self.record.epochs, paths))

    async def publish(self) -> None:
        """Tell the record now: after each change, and as a heartbeat."""
        if self.tell is not None:
            await self.tell(self.record.encode())

    async def check_follows(self, known: PolicyRecord, proposed: PolicyRecord) -> None:
        """Return if a record that another voter proposes follows what this one knows.

        :raises FrameRejected: with reason `member` or `policy` if it does not
        """
        if proposed.cluster != self.record.cluster or proposed.voters != voters_hash(self.voters):
            raise FrameRejected("member", "a record of another set of voters")
        state = self._log.state
        ended = self._ended(known, self._hlc.now_ms(), state.snapshot("grant/"), state.snapshot("member/"))
        if known.log_index and not follows(known, proposed, ended):
            raise FrameRejected("policy", "a record that unsays something")
