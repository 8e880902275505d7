"""Proof of possession: that whoever shows a grant holds its key, said to one verifier, for one request, once.

signature over "MG1 pop" NUL cluster 16 | verifier_pub 32 | subject_pub 32 | verb (length byte, UTF-8) | SHA-256 of the request
| challenge 16 | incarnation 8

It names the verifier, so it cannot be passed on to another; the challenge is the verifier's and is used up.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.keys import NodeKeys, verify

__all__ = ("Challenges", "prove_possession")

DOMAIN: Final = b"MG1 pop"
CHALLENGE_BYTES: Final = 16
CHALLENGES_MAX: Final = 4096
#: A challenge is answered within so long, or not at all.
LIFE_MS: Final = 30_000


def _said(
    cluster: bytes,
    verifier_pub: bytes,
    subject_pub: bytes,
    verb: str,
    request: bytes,
    challenge: bytes,
    incarnation: bytes,
) -> bytes:
    name = verb.encode()
    digest = hashlib.sha256(request).digest()
    return cluster + verifier_pub + subject_pub + bytes([len(name)]) + name + digest + challenge + incarnation


def prove_possession(
    keys: NodeKeys,
    *,
    cluster: bytes,
    verifier_pub: bytes,
    verb: str,
    request: bytes,
    challenge: bytes,
    incarnation: bytes,
) -> bytes:
    """Sign it."""
    said = _said(cluster, verifier_pub, keys.node_pub, verb, request, challenge, incarnation)
    return keys.sign(DOMAIN, said)


class Challenges:
    """A verifier's open challenges. Time comes in; the number is bounded, the oldest goes."""

    def __init__(self, cluster: bytes, verifier_pub: bytes) -> None:
        self._cluster = cluster
        self._verifier_pub = verifier_pub
        self._open: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def issue(self, subject_pub: bytes, now_ms: int) -> bytes:
        """A challenge for one subject."""
        challenge = os.urandom(CHALLENGE_BYTES)
        self._open[challenge] = subject_pub, now_ms
        if len(self._open) > CHALLENGES_MAX:
            self._open.popitem(last=False)
        return challenge

    def check(
        self,
        proof: bytes,
        *,
        subject_pub: bytes,
        verb: str,
        request: bytes,
        challenge: bytes,
        incarnation: bytes,
        now_ms: int,
    ) -> None:
        """Return if the proof holds; its challenge is used up either way.

        :raises FrameRejected: with reason `pop` for a challenge that is not ours, is another's, was used, or is too old, and
            for a signature that does not fit
        """
        subject, at_ms = self._open.pop(challenge, (b"", 0))
        if subject != subject_pub or now_ms - at_ms > LIFE_MS:
            raise FrameRejected("pop", "no such challenge is open")
        said = _said(self._cluster, self._verifier_pub, subject_pub, verb, request, challenge, incarnation)
        try:
            verify(subject_pub, DOMAIN, said, proof)
        except FrameRejected:
            raise FrameRejected("pop", "the proof does not fit") from None
