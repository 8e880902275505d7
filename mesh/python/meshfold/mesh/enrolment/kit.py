"""`Enrolment`: what a node brings to take part, wherever it came from - local enrolment or a join token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from meshfold.mesh.enrolment.memory import NodeMemory
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import Login
from meshfold.security import Grant, Identity, NodeKeys, Trust

__all__ = ("Enrolment", "EnrolmentStore")


class EnrolmentStore(Protocol):
    """Where an enrolment lives, and where its logins come from."""

    @property
    def memory(self) -> NodeMemory:
        """What the node remembers over its restarts."""
        ...

    def login(self, subjects: Subjects, now_ms: Callable[[], int]) -> Login:
        """How to log in at the broker: asked at each connect, so that a renewed login lives from then on."""
        ...

    def keep(self, grants: Iterable[Grant], trust: Trust, login_jwt: str) -> bool:
        """Keep what a voter sent; whether the next login differs from the last."""
        ...

    def keep_identity(self, identity: Identity, narrow_jwt: str) -> None:
        """Keep a newer identity of the node, and the login that asks for another; an empty one changes nothing."""
        ...

    def keep_voters(self, voters: tuple[bytes, ...]) -> None:
        """Keep the voters' newer identities, of the same keys."""
        ...

    def forget(self, hashes: Iterable[bytes]) -> None:
        """Put revoked grants out of use; they are kept, so that enrolling anew does not bring them back."""
        ...

    def mint(
        self, identity: Identity, grants: Iterable[Grant], subjects: Subjects, now_ms: int
    ) -> str | None:
        """A login for another node, if this store may make one."""
        ...


@dataclass(frozen=True)
class Enrolment:
    """Keys, identity and grants of a node, what it trusts, and its store."""

    keys: NodeKeys
    identity: Identity
    grants: tuple[Grant, ...]
    trust: Trust
    voters: tuple[bytes, ...]
    store: EnrolmentStore
