"""SR1: start records order the lives of a node, and give away a clone of it.

magic 'SR' | version 1 | cluster 16 | node_pub 32 | incarnation 8 | predecessor 8 (zeros: the first) | hlc 8
| signature 64 over "MF1 start" NUL the rest

Each start names the life before it, is on disk before the first frame, and its HLC lies after everything that life can
have stamped (`Stamps`). So frames of a plain predecessor all lie before its successor's start; whoever speaks after it,
or names a predecessor that already has a successor, is a second copy of the same keys. Which of the two is honest nobody
can tell from here: both are refused until an operator decides for one.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader
from meshfold.security.keys import NodeKeys, tag_of, verify

__all__ = ("START_OVERLAP_MS", "StartBook", "StartRecord")

DOMAIN: Final = b"MF1 start"
FIRST: Final = bytes(8)
#: A predecessor's frames are taken for so long after its successor began: they may still be on their way.
START_OVERLAP_MS: Final = 60_000
NODES_MAX: Final = 4096
LIVES_EACH_MAX: Final = 64
_FORM: Final = ">2sB16s32s8s8sQ"


@dataclass(frozen=True, slots=True)
class StartRecord:
    """One life of a node."""

    node_pub: bytes
    incarnation: bytes
    predecessor: bytes
    hlc: int
    raw: bytes

    @property
    def tag(self) -> bytes:
        """Whose life."""
        return tag_of(self.node_pub)

    @classmethod
    def issue(
        cls, keys: NodeKeys, cluster: bytes, incarnation: bytes, predecessor: bytes, hlc: int
    ) -> StartRecord:
        """Sign a start."""
        body = struct.pack(_FORM, b"SR", 1, cluster, keys.node_pub, incarnation, predecessor, hlc)
        return cls(keys.node_pub, incarnation, predecessor, hlc, body + keys.sign(DOMAIN, body))

    @classmethod
    def parse(cls, raw: bytes, *, cluster: bytes) -> StartRecord:
        """Read and check a record.

        :raises FrameRejected: if it is none, of another mesh, or not signed by the node it names
        """
        reader = Reader(raw)
        magic, version, of_cluster, node_pub, incarnation, predecessor, hlc = reader.unpack(_FORM)
        signature = reader.take(64)
        reader.end()
        if magic != b"SR" or version != 1:
            raise FrameRejected("magic" if magic != b"SR" else "version", "not a start record")
        if of_cluster != cluster:
            raise FrameRejected("cluster", "a start in another mesh")
        if incarnation in (predecessor, FIRST):
            raise FrameRejected("incarnation", "a life cannot follow itself")
        verify(node_pub, DOMAIN, raw[:-64], signature)
        return cls(node_pub, incarnation, predecessor, hlc, raw)


class StartBook:
    """What is known of every node's lives; says which frames belong to one that may speak."""

    def __init__(self) -> None:
        self._lives: OrderedDict[bytes, list[StartRecord]] = OrderedDict()
        #: tag -> why both copies are refused
        self._fenced: dict[bytes, str] = {}
        self._decided: dict[bytes, bytes] = {}

    @property
    def fenced(self) -> dict[bytes, str]:
        """Nodes of which two copies were seen, and how that showed."""
        return {tag: why for tag, why in self._fenced.items() if tag not in self._decided}

    def note(self, record: StartRecord) -> bool:
        """Take in a start; True if it was not known. Two starts after one life are a clone."""
        lives = self._lives.setdefault(record.tag, [])
        if any(one.incarnation == record.incarnation for one in lives):
            return False
        for one in lives:
            if one.predecessor == record.predecessor:
                self._fenced[record.tag] = (
                    f"two lives follow {record.predecessor.hex()}: {one.incarnation.hex()} and"
                    f" {record.incarnation.hex()}"
                )
        lives.append(record)
        lives.sort(key=lambda one: one.hlc)
        del lives[:-LIVES_EACH_MAX]
        self._lives.move_to_end(record.tag)
        while len(self._lives) > NODES_MAX:
            self._lives.popitem(last=False)
        return True

    def check(self, tag: bytes, incarnation: bytes, hlc: int, now_ms: int) -> None:
        """Whether a life of a node may say something stamped `hlc`. Changes nothing.

        :raises FrameRejected: with reason `incarnation` for a fenced node, a life that has ended, or one never begun
        """
        decided = self._decided.get(tag)
        if decided is not None:
            if incarnation != decided and not self._follows(tag, incarnation, decided):
                raise FrameRejected("incarnation", "an operator decided for another life of the node")
            return
        if tag in self._fenced:
            raise FrameRejected("incarnation", f"a clone is about: {self._fenced[tag]}")
        lives = self._lives.get(tag)
        if not lives:
            return
        newest = lives[-1]
        if incarnation == newest.incarnation:
            if hlc < newest.hlc:
                raise FrameRejected("incarnation", "stamped before its own start")
            return
        for place, one in enumerate(lives[:-1]):
            if one.incarnation == incarnation or lives[place + 1].predecessor == incarnation:
                if hlc >= lives[place + 1].hlc or now_ms > (lives[place + 1].hlc >> 16) + START_OVERLAP_MS:
                    raise FrameRejected("incarnation", "a life that has ended", ended=incarnation)
                return
        if lives[0].predecessor == incarnation:
            if hlc >= lives[0].hlc or now_ms > (lives[0].hlc >> 16) + START_OVERLAP_MS:
                raise FrameRejected("incarnation", "a life that has ended", ended=incarnation)
            return
        if hlc < newest.hlc:
            raise FrameRejected("incarnation", "an older life of the node")

    def spoke(self, tag: bytes, incarnation: bytes, hlc: int) -> bool:
        """Note that a life spoke, under a signature that held: True if that shows a clone.

        A plain predecessor cannot stamp anything after its successor's start.
        """
        for one in self._lives.get(tag, []):
            if one.predecessor == incarnation and hlc >= one.hlc and tag not in self._fenced:
                self._fenced[tag] = (
                    f"{incarnation.hex()} goes on after {one.incarnation.hex()} began in its place"
                )
                return True
        return False

    def decide(self, decided: tuple[tuple[bytes, bytes], ...]) -> None:
        """Take the voters' word on which copy may go on."""
        self._decided = dict(decided)

    def newest(self, tag: bytes) -> StartRecord | None:
        """The latest start known of a node."""
        lives = self._lives.get(tag)
        return lives[-1] if lives else None

    def _follows(self, tag: bytes, incarnation: bytes, decided: bytes) -> bool:
        """Whether a life stands in the line that begins with the one decided for."""
        by_name = {one.incarnation: one for one in self._lives.get(tag, [])}
        for _ in range(LIVES_EACH_MAX):
            record = by_name.get(incarnation)
            if record is None:
                return False
            if record.predecessor == decided:
                return True
            incarnation = record.predecessor
        return False
