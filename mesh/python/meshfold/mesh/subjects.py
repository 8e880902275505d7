"""Routes and nodes as NATS subjects: `mf.<cluster>.<class>.…` (REGISTRY: frame kinds and their subjects).

Invariants: a subject is built from escaped tokens only, so nothing a user names can add a token or a wildcard; what
arrives is parsed strictly and refused as `route` otherwise.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from meshfold.core import Address
from meshfold.core.errors import FrameRejected, WiringError

__all__ = ("GROUP", "Subjects", "cluster_text")

#: The one group of voters of a mesh: those of its control log.
GROUP = "control"

#: NATS itself allows longer subjects; ours are at most 6 x 48 + fixed tokens and a parser bound keeps work bounded.
SUBJECT_BYTES_MAX = 400


def cluster_text(cluster: bytes) -> str:
    """Return the 16-byte cluster id as a subject token (26 characters)."""
    return base64.b32encode(cluster).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects of one mesh, as one site speaks."""

    cluster: bytes
    site: str = "local"

    @property
    def root(self) -> str:
        """The prefix of every subject of this mesh."""
        return f"mf.{cluster_text(self.cluster)}"

    def route(self, frame_class: str, address: Address) -> str:
        """Where this site publishes frames of a route."""
        return f"{self.root}.{frame_class}.s-{self.site}.{address.text}"

    def route_any_site(self, frame_class: str, address: Address) -> str:
        """What a reader of a route subscribes to."""
        return f"{self.root}.{frame_class}.*.{address.text}"

    def pattern(self, frame_class: str, pattern: str, *, own_site: bool) -> str:
        """The subjects of a grant pattern (an exact address or a prefix ending in `>`)."""
        return f"{self.root}.{frame_class}.{f's-{self.site}' if own_site else '*'}.{pattern}"

    def node(self, frame_class: str, tag: bytes) -> str:
        """Where one node is spoken to (`k`, `q`) or speaks (`h`)."""
        return f"{self.root}.{frame_class}.{tag.hex()}"

    def raft(self, group: str, tag: bytes) -> str:
        """Where the voters of a group speak to one of them."""
        return f"{self.root}.r.{group}.{tag.hex()}"

    def every(self, frame_class: str) -> str:
        """All subjects of a class."""
        return f"{self.root}.{frame_class}.>"

    def inbox(self, tag: bytes) -> str:
        """The private inbox prefix of a node; never `_INBOX`, which others may be allowed to read."""
        return f"_MF.{tag.hex()}"

    def enrol(self, token_id: bytes) -> str:
        """Where the holder of a join token asks."""
        return f"{self.root}.e.{token_id.hex()}"

    def enrol_inbox(self, token_id: bytes) -> str:
        """Where it is answered."""
        return f"_MF.e-{token_id.hex()}"

    def address_of(self, frame_class: str, subject: str) -> Address:
        """Return the route that a frame's subject names.

        :raises FrameRejected: with reason `route` if the subject is not one of this mesh, class and form
        """
        tokens = subject.split(".") if len(subject) <= SUBJECT_BYTES_MAX else []
        if len(tokens) != 10 or ".".join(tokens[:2]) != self.root or tokens[2] != frame_class:
            raise FrameRejected("route", "not a route subject of this mesh")
        if not tokens[3].startswith("s-"):
            raise FrameRejected("route", "no site token")
        try:
            return Address.parse(".".join(tokens[4:]))
        except WiringError as error:
            raise FrameRejected("route", str(error)) from None
