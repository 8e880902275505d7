"""PR1: what the voters say is in force - revocations, key epochs, decided clones - signed by a majority of them.

head: magic 'PR' | version 1 | suite 1 | cluster 16 | voters_hash 32 | log_index 8 | policy_epoch 4 | digest 32 (SHA-256 of body)
body: n_revoked 4 | n x 32 | n_raises 2 | raises (`Raise`) | n_decided 2 | n x (tag 8, incarnation 8)
record: head | body_len 4 | body | n_signatures 1 | n x (voter tag 8, signature 64 over "MF1 policy" NUL head)

Revoked items and decided clones rise strictly, so a policy has one encoding. `voters_hash` names the set of voters whose
majority counts: a record of a deposed set is refused.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader
from meshfold.security.epochs import Epochs, Raise
from meshfold.security.frame import SUITES
from meshfold.security.grant_book import Policy
from meshfold.security.identity import Identity
from meshfold.security.keys import NodeKeys, verify

__all__ = ("PolicyRecord", "voters_hash")

DOMAIN: Final = b"MF1 policy"
RECORD_BYTES_MAX: Final = 900 * 1024
REVOKED_MAX: Final = 16_384
DECIDED_MAX: Final = 4096
VOTERS_MAX: Final = 16
_HEAD: Final = struct.Struct(">2sBB16s32sQI32s")


def voters_hash(voters: Iterable[Identity]) -> bytes:
    """Names a set of voters."""
    return hashlib.sha256(b"MF1 voters\0" + b"".join(sorted(one.node_pub for one in voters))).digest()


@dataclass(frozen=True)
class PolicyRecord:
    """One state of the policy. Higher (policy_epoch, log_index) replaces lower, never the other way."""

    cluster: bytes
    voters: bytes
    log_index: int
    policy_epoch: int
    revoked: frozenset[bytes] = frozenset()
    epochs: Epochs = field(default_factory=Epochs)
    #: node tag -> the one incarnation that an operator decided for after a clone was found
    decided: tuple[tuple[bytes, bytes], ...] = ()
    suite: int = 1
    signatures: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """What orders records."""
        return self.policy_epoch, self.log_index

    @property
    def policy(self) -> Policy:
        """What a grant book takes."""
        return Policy(self.policy_epoch, self.revoked)

    def _body(self) -> bytes:
        revoked = sorted(self.revoked)
        raises = self.epochs.raises
        out = struct.pack(">I", len(revoked)) + b"".join(revoked)
        out += struct.pack(">H", len(raises)) + b"".join(one.encode() for one in raises)
        decided = sorted(self.decided)
        return out + struct.pack(">H", len(decided)) + b"".join(tag + inc for tag, inc in decided)

    def head(self) -> bytes:
        """What the voters sign."""
        return _HEAD.pack(
            b"PR",
            1,
            self.suite,
            self.cluster,
            self.voters,
            self.log_index,
            self.policy_epoch,
            hashlib.sha256(self._body()).digest(),
        )

    def encode(self) -> bytes:
        """The record with its signatures.

        :raises FrameRejected: with reason `limit` if it holds more than a record may
        """
        body = self._body()
        if len(self.revoked) > REVOKED_MAX or len(body) > RECORD_BYTES_MAX or len(self.decided) > DECIDED_MAX:
            raise FrameRejected("limit", "a policy of too many entries")
        signatures = b"".join(tag + signature for tag, signature in self.signatures)
        return self.head() + struct.pack(">I", len(body)) + body + bytes([len(self.signatures)]) + signatures

    def sign(self, keys: NodeKeys) -> tuple[bytes, bytes]:
        """One voter's signature: (tag, signature)."""
        return keys.tag, keys.sign(DOMAIN, self.head())

    def head_digest(self) -> bytes:
        """Names this record among all of its rank."""
        return hashlib.sha256(self.head()).digest()

    def check_signature(self, voter: Identity, signature: bytes) -> None:
        """Return if that is the voter's signature of this record.

        :raises FrameRejected: with reason `sig` if it is not
        """
        verify(voter.node_pub, DOMAIN, self.head(), signature)

    @classmethod
    def parse(cls, raw: bytes) -> PolicyRecord:
        """Read a record; signatures are checked by `verify`.

        :raises FrameRejected: if it is none, or not in its one encoding
        """
        if len(raw) > RECORD_BYTES_MAX:
            raise FrameRejected("size", "policy record")
        reader = Reader(raw)
        magic, version, suite, cluster, voters, index, epoch, digest = reader.unpack(_HEAD.format)
        if magic != b"PR" or version != 1:
            raise FrameRejected("magic" if magic != b"PR" else "version", "not a policy record")
        if suite not in SUITES:
            raise FrameRejected("suite", str(suite))
        (size,) = reader.unpack(">I")
        body = reader.take(size)
        (count,) = reader.unpack(">B")
        if count > VOTERS_MAX:
            raise FrameRejected("limit", "signatures")
        signatures = tuple((reader.take(8), reader.take(64)) for _ in range(count))
        reader.end()
        if hashlib.sha256(body).digest() != digest:
            raise FrameRejected("format", "body of another record")
        revoked, epochs, decided = _read_body(body)
        return cls(cluster, voters, index, epoch, revoked, epochs, decided, suite, signatures)

    def verify(self, cluster: bytes, voters: Mapping[bytes, Identity]) -> None:
        """Check mesh, voter set and that a majority of the voters signed.

        :raises FrameRejected: with reason `cluster`, `member` or `sig`
        """
        if self.cluster != cluster:
            raise FrameRejected("cluster", "a policy of another mesh")
        if self.voters != voters_hash(voters.values()):
            raise FrameRejected("member", "a policy of another set of voters")
        signed: set[bytes] = set()
        for tag, signature in self.signatures:
            voter = voters.get(tag)
            if voter is None:
                raise FrameRejected("member", "signed by no voter")
            self.check_signature(voter, signature)
            signed.add(tag)
        if 2 * len(signed) <= len(voters):
            raise FrameRejected("sig", f"{len(signed)} of {len(voters)} voters signed, no majority")


def _read_body(body: bytes) -> tuple[frozenset[bytes], Epochs, tuple[tuple[bytes, bytes], ...]]:
    reader = Reader(body)
    (count,) = reader.unpack(">I")
    if count > REVOKED_MAX:
        raise FrameRejected("limit", "revoked")
    revoked = [reader.take(32) for _ in range(count)]
    (count,) = reader.unpack(">H")
    raises = tuple(Raise.read(reader) for _ in range(count))
    (count,) = reader.unpack(">H")
    decided = [(reader.take(8), reader.take(8)) for _ in range(count)]
    reader.end()
    if revoked != sorted(set(revoked)) or decided != sorted(set(decided)):
        raise FrameRejected("format", "entries repeat or are out of order")
    return frozenset(revoked), Epochs(raises), tuple(decided)
