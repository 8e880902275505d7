"""MG1: a grant is a chain of signed links, each by the previous link's subject.

magic 'MG' | ver 1 | flags 0 | caps_len 2 | cluster 16 | issuer_pub 32 | subject_pub 32 | parent_hash 32 | nonce 16
| not_before 8 | not_after 8 (ms) | policy_epoch 4 | depth_left 1 | n_caps 1 | caps | signature 64
cap: actions 2 | pattern (length byte) | caveats_len 1 | caveats
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import FrameRejected
from meshfold.core.registry import Action
from meshfold.security.capability import Capability, check_pattern, covers, known_actions
from meshfold.security.caveat import decode_caveats, encode_caveats
from meshfold.security.codec import Reader
from meshfold.security.identity import SKEW_MS
from meshfold.security.keys import check_ed25519_public, tag_of, verify

__all__ = ("Grant", "KeySigner", "Link", "LinkSigner")

DOMAIN: Final = b"MG1 grant"
LINKS_MAX: Final = 4
CAPS_MAX: Final = 32
CHAIN_BYTES_MAX: Final = 4096
_HEAD: Final = ">2sBBH16s32s32s32s16sQQIBB"


class LinkSigner(Protocol):
    """Whoever signs a link: a node's keys for what it passes on, an authority's key for the first."""

    @property
    def node_pub(self) -> bytes:
        """The key that signs."""
        ...

    def sign(self, domain: bytes, data: bytes) -> bytes:
        """Sign `domain || NUL || data`."""
        ...


class KeySigner:
    """A bare key as a signer. Prints as REDACTED."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.node_pub = key.public_key().public_bytes_raw()

    def sign(self, domain: bytes, data: bytes) -> bytes:
        """Sign `domain || NUL || data`."""
        return self._key.sign(domain + b"\0" + data)

    def __repr__(self) -> str:
        return "KeySigner(REDACTED)"


@dataclass(frozen=True)
class Link:
    """One signed link."""

    cluster: bytes
    issuer_pub: bytes
    subject_pub: bytes
    parent_hash: bytes
    not_before_ms: int
    not_after_ms: int
    policy_epoch: int
    depth_left: int
    capabilities: tuple[Capability, ...]
    raw: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256 of the link."""
        return hashlib.sha256(self.raw).digest()


def _encode_caps(capabilities: Sequence[Capability]) -> bytes:
    if not 0 < len(capabilities) <= CAPS_MAX:
        raise FrameRejected("size", "1 to 32 capabilities")
    out = b""
    for capability in capabilities:
        check_pattern(capability.pattern)
        caveats = encode_caveats(capability.caveats)
        pattern = capability.pattern.encode()
        out += (
            struct.pack(">HB", int(capability.actions), len(pattern))
            + pattern
            + bytes([len(caveats)])
            + caveats
        )
    return out


@dataclass(frozen=True)
class Grant:
    """A chain of links, root first. What it allows is what the last link says."""

    links: tuple[Link, ...]
    raw: bytes

    @property
    def leaf(self) -> Link:
        """The last link."""
        return self.links[-1]

    @property
    def hash(self) -> bytes:
        """SHA-256 of the last link."""
        return self.leaf.hash

    @property
    def subject_pub(self) -> bytes:
        """Whose grant it is."""
        return self.leaf.subject_pub

    @property
    def tag(self) -> bytes:
        """The tag of its holder."""
        return tag_of(self.subject_pub)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What it allows."""
        return self.leaf.capabilities

    @property
    def not_before_ms(self) -> int:
        """From when."""
        return self.leaf.not_before_ms

    @property
    def not_after_ms(self) -> int:
        """Until when."""
        return self.leaf.not_after_ms

    @property
    def policy_epoch(self) -> int:
        """The policy epoch it was issued under."""
        return self.leaf.policy_epoch

    @classmethod
    def issue(
        cls,
        signer: LinkSigner,
        *,
        cluster: bytes,
        subject_pub: bytes,
        capabilities: Sequence[Capability],
        not_before_ms: int,
        not_after_ms: int,
        policy_epoch: int,
        depth_left: int = 0,
        parent: Grant | None = None,
    ) -> Grant:
        """Sign a link, under `parent` if given.

        :raises FrameRejected: with reason `key`, `size` or `pattern` for what no verifier would take
        """
        check_ed25519_public(subject_pub)
        caps = _encode_caps(capabilities)
        body = struct.pack(
            _HEAD,
            b"MG",
            1,
            0,
            len(caps),
            cluster,
            signer.node_pub,
            subject_pub,
            parent.leaf.hash if parent else bytes(32),
            os.urandom(16),
            not_before_ms,
            not_after_ms,
            policy_epoch,
            depth_left,
            len(capabilities),
        )
        link = body + caps
        link += signer.sign(DOMAIN, link)
        return cls.parse((parent.raw if parent else b"") + link)

    @classmethod
    def parse(cls, raw: bytes) -> Grant:
        """Read a chain; signatures and rules are checked by `verify`.

        :raises FrameRejected: if it is not one, naming the limit or field
        """
        if len(raw) > CHAIN_BYTES_MAX:
            raise FrameRejected("size", f"a chain of {len(raw)} bytes")
        reader = Reader(raw)
        links: list[Link] = []
        while reader.at < len(raw):
            if len(links) == LINKS_MAX:
                raise FrameRejected("depth", "more than four links")
            links.append(_link(reader, raw))
        if not links:
            raise FrameRejected("short", "empty grant")
        return cls(tuple(links), raw)

    def attenuate(
        self,
        holder: LinkSigner,
        subject_pub: bytes,
        capabilities: Sequence[Capability],
        *,
        not_after_ms: int,
        now_ms: int,
    ) -> Grant:
        """Pass on less than this grant allows: one more link, signed by its holder, without anybody's help.

        :raises FrameRejected: with the reason of the rule the new link would break, so nothing useless is handed on
        """
        if holder.node_pub != self.subject_pub:
            raise FrameRejected("delegate", "only its holder passes a grant on")
        if self.leaf.depth_left == 0:
            raise FrameRejected("depth", "this grant may not be passed on")
        made = Grant.issue(
            holder,
            cluster=self.leaf.cluster,
            subject_pub=subject_pub,
            capabilities=capabilities,
            not_before_ms=max(now_ms, self.not_before_ms),
            not_after_ms=min(not_after_ms, self.not_after_ms),
            policy_epoch=self.policy_epoch,
            depth_left=self.leaf.depth_left - 1,
            parent=self,
        )
        _check_child(self.leaf, made.leaf)
        return made

    def verify(self, *, cluster: bytes, roots: frozenset[bytes], now_ms: int) -> None:
        """Check the whole chain: the root before any signature, then root to leaf (SECURITY: chain rules).

        :raises FrameRejected: with the reason of the first rule broken; its detail names the link
        """
        if self.links[0].issuer_pub not in roots:
            raise FrameRejected("root", "not issued by this mesh's authority", link=1)
        above: Link | None = None
        for number, link in enumerate(self.links, 1):
            try:
                _check_link(above, link, cluster, now_ms)
            except FrameRejected as error:
                place = f"link {number} of {len(self.links)}"
                raise FrameRejected(error.reason, f"{place}: {error.detail}", link=number) from None
            above = link


def _check_link(above: Link | None, link: Link, cluster: bytes, now_ms: int) -> None:
    if link.cluster != cluster:
        raise FrameRejected("cluster", "a grant of another mesh")
    _check_times(link, now_ms)
    if above is not None:
        _check_child(above, link)
    elif link.parent_hash != bytes(32):
        raise FrameRejected("depth", "the root has a parent")
    verify(link.issuer_pub, DOMAIN, link.raw[:-64], link.raw[-64:])


def _check_times(link: Link, now_ms: int) -> None:
    if link.not_after_ms < link.not_before_ms or link.not_after_ms >= 2**63:
        raise FrameRejected("time", "not a period")
    if now_ms < link.not_before_ms - SKEW_MS:
        raise FrameRejected("time", "not valid yet")
    if now_ms > link.not_after_ms + SKEW_MS:
        raise FrameRejected("time", "expired")


def _check_child(above: Link, link: Link) -> None:
    if link.parent_hash != above.hash or link.issuer_pub != above.subject_pub:
        raise FrameRejected("depth", "a link of another chain")
    if link.depth_left >= above.depth_left:
        raise FrameRejected("depth", "depth_left does not shrink")
    if not any(capability.actions & Action.DELEGATE for capability in above.capabilities):
        raise FrameRejected("delegate", "the issuer may not delegate")
    if link.not_before_ms < above.not_before_ms or link.not_after_ms > above.not_after_ms:
        raise FrameRejected("time", "outside its parent's period")
    for capability in link.capabilities:
        if not any(covers(parent, capability) for parent in above.capabilities):
            raise FrameRejected("attenuation", f"{capability.pattern} is wider than its parent")


def _link(reader: Reader, raw: bytes) -> Link:
    begin = reader.at
    (
        magic,
        version,
        flags,
        caps_len,
        cluster,
        issuer,
        subject,
        parent,
        _,
        before,
        after,
        epoch,
        depth,
        n_caps,
    ) = reader.unpack(_HEAD)
    if magic != b"MG" or version != 1 or flags:
        raise FrameRejected("format", "not a grant link")
    if not 0 < n_caps <= CAPS_MAX:
        raise FrameRejected("size", "1 to 32 capabilities")
    caps_begin = reader.at
    capabilities = tuple(_capability(reader) for _ in range(n_caps))
    if reader.at - caps_begin != caps_len:
        raise FrameRejected("ext", "capability length")
    reader.take(64)
    check_ed25519_public(subject)
    return Link(
        cluster, issuer, subject, parent, before, after, epoch, depth, capabilities, raw[begin : reader.at]
    )


def _capability(reader: Reader) -> Capability:
    (bits,) = reader.unpack(">H")
    actions = known_actions(bits)
    pattern = reader.text()
    check_pattern(pattern)
    (caveats_len,) = reader.unpack(">B")
    return Capability(actions, pattern, decode_caveats(reader.take(caveats_len)))
