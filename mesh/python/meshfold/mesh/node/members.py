"""Who is in the mesh, learned from signed heartbeats and verified identities.

Invariants: an identity enters only after its signature by a pinned issuer was checked; the table is bounded; a member
is alive while its last heartbeat is younger than `MEMBER_TIMEOUT_S` and it has not closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from meshfold.core.errors import FrameRejected
from meshfold.mesh.records import Heartbeat
from meshfold.security import Identity, WrapRecord

__all__ = ("Directory", "Member")

#: Heartbeats come every HEARTBEAT_S; a member that missed five is taken for gone.
HEARTBEAT_S = 0.5
MEMBER_TIMEOUT_S = 2.5
MEMBERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """One node as this node sees it."""

    name: str
    #: hex of the node's 8-byte tag
    id: str
    #: hex of the incarnation last heard
    incarnation: str
    alive: bool
    age_ms: int


@dataclass(slots=True)
class _Seen:
    heartbeat: Heartbeat
    incarnation: bytes
    at_mono_ns: int
    closed: bool


class Directory:
    """Identities by tag, and the last heartbeat of each."""

    def __init__(
        self,
        cluster: bytes,
        issuers: Callable[[], frozenset[bytes]],
        now_ms: Callable[[], int],
        mono_ns: Callable[[], int],
    ) -> None:
        self._cluster = cluster
        self._issuers = issuers
        self._now_ms = now_ms
        self._mono_ns = mono_ns
        self._identities: dict[bytes, Identity] = {}
        self._seen: dict[bytes, _Seen] = {}
        self._wraps: dict[bytes, WrapRecord] = {}

    def admit(self, raw: bytes) -> Identity:
        """Take in an ID1 record.

        :raises FrameRejected: if it is malformed, of another mesh, not signed by a pinned issuer, expired, or names a
            tag that another key already holds; or the table is full (`limit`)
        """
        identity = Identity.parse(raw)
        known = self._identities.get(identity.tag)
        if known is not None and known.raw == raw:
            return known
        identity.verify(cluster=self._cluster, issuers=self._issuers(), now_ms=self._now_ms())
        if known is not None and known.node_pub != identity.node_pub:
            raise FrameRejected("member", "two keys with one tag")
        if known is not None and identity.not_before_ms < known.not_before_ms:
            # An older record of the same node, sent again: the newer one stays.
            return known
        if known is None and len(self._identities) >= MEMBERS_MAX:
            raise FrameRejected("limit", f"more than {MEMBERS_MAX} members")
        wrap = self._wraps.get(identity.tag)
        if wrap is not None:
            identity = replace(identity, wrap_pub=wrap.wrap_pub)
        self._identities[identity.tag] = identity
        return identity

    def take_wrap(self, tag: bytes, raw: bytes) -> None:
        """Seal to a node's newer wrapping key from now on.

        :raises FrameRejected: if the record does not hold; an older one is ignored
        """
        identity = self._identities[tag]
        known = self._wraps.get(tag)
        if known is not None and known.raw == raw:
            return
        record = WrapRecord.parse(raw, cluster=self._cluster, node_pub=identity.node_pub)
        if known is None or record.counter > known.counter:
            self._wraps[tag] = record
            self._identities[tag] = replace(identity, wrap_pub=record.wrap_pub)

    def lookup(self, tag: bytes) -> Identity | None:
        """Return the identity with this tag, if one was admitted."""
        return self._identities.get(tag)

    def by_name(self, name: str) -> Identity | None:
        """Return the member of that name: the one heard last, else one that was only admitted."""
        tags = [tag for tag, seen in self._seen.items() if seen.heartbeat.name == name]
        tags.sort(key=lambda tag: self._seen[tag].at_mono_ns)
        if tags:
            return self._identities.get(tags[-1])
        return next((identity for identity in self._identities.values() if identity.name == name), None)

    def heard(self, tag: bytes, incarnation: bytes, heartbeat: Heartbeat) -> bool:
        """Note a heartbeat; True if this incarnation is new to us. Older ones of the same incarnation are ignored."""
        last = self._seen.get(tag)
        fresh = last is None or last.incarnation != incarnation
        if last is not None and not fresh and heartbeat.counter <= last.heartbeat.counter:
            return False
        self._seen[tag] = _Seen(heartbeat, incarnation, self._mono_ns(), heartbeat.closing)
        return fresh

    def last(self, tag: bytes) -> Heartbeat | None:
        """The last heartbeat of a node."""
        seen = self._seen.get(tag)
        return seen.heartbeat if seen else None

    def incarnation(self, tag: bytes) -> bytes | None:
        """The incarnation last heard of a node."""
        seen = self._seen.get(tag)
        return seen.incarnation if seen else None

    def alive(self, tag: bytes) -> bool:
        """Whether the node was heard lately and has not closed."""
        seen = self._seen.get(tag)
        return seen is not None and not seen.closed and self._age_s(seen) < MEMBER_TIMEOUT_S

    def silent(self, tag: bytes) -> bool:
        """Whether the node was heard once, and is not alive any more."""
        return tag in self._seen and not self.alive(tag)

    def heard_incarnations(self) -> dict[str, bytes]:
        """What the next heartbeat echoes."""
        return {tag.hex(): seen.incarnation for tag, seen in self._seen.items()}

    def tags(self) -> list[bytes]:
        """All tags heard of, alive or not."""
        return list(self._seen)

    def members(self) -> list[Member]:
        """Everyone heard of, by name."""
        found = [
            Member(
                seen.heartbeat.name,
                tag.hex(),
                seen.incarnation.hex(),
                self.alive(tag),
                int(self._age_s(seen) * 1000),
            )
            for tag, seen in self._seen.items()
        ]
        return sorted(found, key=lambda member: (member.name, member.id))

    def _age_s(self, seen: _Seen) -> float:
        return (self._mono_ns() - seen.at_mono_ns) / 1e9
