"""Two parties without a network: an authority, a voter, and nodes with grants, at a clock that a test moves."""

from __future__ import annotations

from typing import Any

from meshfold.core import Address
from meshfold.core.registry import Action
from meshfold.security import (
    Authority,
    Capability,
    Epochs,
    EventFrame,
    Grant,
    GrantBook,
    Identity,
    Keyring,
    KeyTree,
    NodeKeys,
    Opener,
    Raise,
    Sealer,
)

__all__ = ("CLUSTER", "LIFE_MS", "NOW_MS", "OTHER", "SECRET", "Mesh", "Party", "StillClock")

NOW_MS = 1_800_000_000_000
#: Identities and grants hold from so long before NOW_MS until so long after it.
LIFE_MS = 3_600_000
CLUSTER = b"c" * 16
SECRET = Address.of("edge", "vault", "secret")
OTHER = Address.of("edge", "vault", "other")


class StillClock:
    """The same moment until a test moves it."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now(self) -> tuple[int, int]:
        """Wall and monotonic."""
        return self.ms * 1_000_000, (self.ms - NOW_MS) * 1_000_000


class Party:
    """A node with its grants."""

    def __init__(self, mesh: Mesh, name: str, *capabilities: Capability) -> None:
        self.mesh = mesh
        self.keys = NodeKeys.generate()
        self.identity = mesh.authority.issue_identity(
            node_pub=self.keys.node_pub,
            wrap_pub=self.keys.wrap_pub,
            login_pub=self.keys.login_pub,
            name=name,
            roles=("node",),
            not_before_ms=NOW_MS - LIFE_MS,
            not_after_ms=NOW_MS + LIFE_MS,
        )
        mesh.identities[self.identity.tag] = self.identity
        self.keyring = Keyring(self.keys, self.identity)
        self.sealer = Sealer(self.keys, CLUSTER, name.encode().ljust(8, b"-")[:8], self.keyring)
        self.opener = Opener(self.keyring, self.keys, CLUSTER, mesh.identities.get, mesh.book, mesh.clock)
        self.grants: list[Grant] = []
        if capabilities:
            self.grants.append(mesh.grant(self, *capabilities))
            self.fetch_keys()

    @property
    def grant(self) -> Grant:
        """Its first grant."""
        return self.grants[0]

    def fetch_keys(self) -> None:
        """Install what the voter wraps for its grants."""
        self.keyring.install(self.mesh.packet(self), self.mesh.voters)

    def seal(self, address: Address = SECRET, **changes: Any) -> EventFrame:
        """A frame of one event."""
        fields: dict[str, Any] = {
            "schema_id": b"s" * 8,
            "first_seq": 1,
            "count": 1,
            "meta": b"the metadata",
            "payload": b"the payload",
            "hlc": self.mesh.clock.ms << 16,
            "policy_epoch": self.mesh.book.policy.epoch,
        }
        return self.sealer.events(address, **(fields | changes))


class Mesh:
    """An authority, a voter and everybody's grants."""

    def __init__(self) -> None:
        self.clock = StillClock()
        self.authority = Authority.generate(CLUSTER)
        self.identities: dict[bytes, Identity] = {}
        self.roots = frozenset({self.authority.grant_pub})
        self.book = GrantBook(CLUSTER, self.roots, clock=self.clock, directory=self.identities.get)
        self.tree = KeyTree.generate(CLUSTER)
        self.epochs = Epochs()
        self.voter = Party(self, "voter")
        self.voters = {self.voter.identity.tag: self.voter.identity}
        self.edge = Party(self, "edge", Capability(Action.OWN, "read.logical.edge.>"))
        self.hub = Party(self, "hub", Capability(Action.META_READ | Action.PAYLOAD_OPEN, ">"))
        self.meta = Party(self, "meta", Capability(Action.META_READ, ">"))
        self.outsider = Party(self, "outsider")

    def grant(self, party: Party, *capabilities: Capability, **changes: Any) -> Grant:
        """A grant of the authority, noted in the book."""
        fields: dict[str, Any] = {
            "not_before_ms": NOW_MS - LIFE_MS,
            "not_after_ms": NOW_MS + LIFE_MS,
            "policy_epoch": 0,
        }
        grant = self.authority.issue_grant(party.keys.node_pub, capabilities, **(fields | changes))
        self.book.add(grant, self.clock.ms)
        return grant

    def packet(self, party: Party) -> bytes:
        """A key packet for all grants of a party."""
        return self.tree.packet(
            self.voter.keys,
            self.voter.identity,
            party.identity,
            party.grants,
            hlc=self.clock.ms << 16,
            epochs=self.epochs,
        )

    def rotate(self, path: tuple[str, ...], *, in_ms: int = 0) -> None:
        """Raise the epoch of a node; parties learn of it when a test tells them."""
        node, vector = self.epochs.next_of(path)
        if not node and not self.tree.store.has_root(vector[0]):
            self.tree.store.draw_roots(vector[0])
        kc = self.tree.commitments(node, vector)
        one = Raise(node, vector[-1], self.clock.ms + in_ms, self.book.policy.epoch, kc, above=vector[:-1])
        self.epochs = self.epochs.with_raise(one, self.clock.ms)
