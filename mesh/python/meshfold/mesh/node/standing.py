"""Grants that go on: what a node was given when it joined is given again before it ends, for as long as it is wanted.

A voter that holds the issuer does it when the node asks for its keys. What an operator issued for a stated time ends at
that time; what was revoked is not given again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from meshfold.core import escape_token
from meshfold.core.errors import FrameRejected
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.mesh.enrolment.authority_folder import BACKDATE_MS
from meshfold.mesh.enrolment.local import GRANT_MS, IDENTITY_MS, narrow_login
from meshfold.mesh.subjects import Subjects
from meshfold.security import Grant, Identity

__all__ = ("PREFIX", "Standing")

#: Before the hash of a standing grant, in the control log.
PREFIX: Final = "standing/"


class Standing:
    """Renews standing grants with one issuer."""

    def __init__(self, authority: AuthorityFolder, nodes_dir: Path) -> None:
        self._authority = authority
        self._nodes_dir = nodes_dir

    def identity(
        self, identity: Identity, subjects: Subjects, voters: Sequence[bytes], now_ms: int
    ) -> tuple[Identity, str]:
        """The same node's identity with a new time, and the login that asks for another for as long."""
        fresh = self._authority.issuer.issue_identity(
            node_pub=identity.node_pub,
            wrap_pub=Identity.parse(identity.raw).wrap_pub,
            login_pub=identity.login_pub,
            name=identity.name,
            roles=identity.roles,
            not_before_ms=now_ms - BACKDATE_MS,
            not_after_ms=now_ms + IDENTITY_MS,
        )
        return fresh, narrow_login(self._authority, fresh, subjects, voters)

    def renewed(
        self, identity: Identity, valid: Iterable[Grant], marked: Iterable[str], now_ms: int
    ) -> list[Grant]:
        """Fresh grants in place of those that stand and have less than a third of their time left.

        :param valid: what the node holds, without what was revoked or has ended
        :param marked: hashes of standing grants, in hex; those of local enrolment stand without
        """
        held = list(valid)
        standing = {*marked, *self._local(identity)}
        fresh: list[Grant] = []
        for grant in held:
            if grant.hash.hex() not in standing or not _due(grant, now_ms):
                continue
            if any(_same(grant, other) and not _due(other, now_ms) for other in (*held, *fresh)):
                continue
            made = self._authority.issuer.issue_grant(
                identity.node_pub,
                grant.capabilities,
                not_before_ms=now_ms - BACKDATE_MS,
                not_after_ms=now_ms + GRANT_MS,
                policy_epoch=grant.policy_epoch,
            )
            # An issuer at its own end would give the same end again, at each question.
            if made.not_after_ms > grant.not_after_ms:
                fresh.append(made)
        return fresh

    def _local(self, identity: Identity) -> set[str]:
        """The grant that a node enrolled on this machine got by its name."""
        path = self._nodes_dir / escape_token(identity.name) / "local.grant"
        try:
            return {Grant.parse(path.read_bytes()).hash.hex()}
        except (OSError, FrameRejected):
            return set()


def _due(grant: Grant, now_ms: int) -> bool:
    return grant.not_after_ms - now_ms < (grant.not_after_ms - grant.not_before_ms) // 3


def _same(one: Grant, other: Grant) -> bool:
    return one.hash != other.hash and one.capabilities == other.capabilities
