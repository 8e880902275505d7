"""Key epochs: which key of the tree a route is under, and when that changes.

A node of the tree is an address prefix with a public epoch number. Raising a node sets the epochs below it to 0, so that
whoever holds only the old key of that node or below cannot derive the new one. A frame names its key by the vector of
epochs along its path: root, then six tokens. A shreddable route stands outside the tree: its vector is six times
OUTSIDE and its own epoch.

Invariants: a node's epoch only rises; what a vector means never changes; the list of raises is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader

__all__ = (
    "DEPTH",
    "OUTSIDE",
    "OVERLAP_MS",
    "ZERO",
    "Epochs",
    "Raise",
    "Vector",
    "pack_vector",
    "unpack_vector",
)

Vector = tuple[int, ...]
DEPTH: Final = 6
ZERO: Final[Vector] = (0,) * (DEPTH + 1)
#: Stands in the vector of a route outside the tree; no node of the tree reaches it.
OUTSIDE: Final = 65_535
#: The highest epoch of a node; then its parent is raised instead.
EPOCH_MAX: Final = OUTSIDE - 1
#: Frames under the epoch before are taken for so long after its successor began: a sender may be cut off.
OVERLAP_MS: Final = 60_000
RAISES_MAX: Final = 4096
_FORWARD_MS: Final = 2**63
_CLASSES: Final = 3


def pack_vector(vector: Vector) -> bytes:
    """The 14 bytes of a frame's header."""
    return struct.pack(">7H", *vector)


def unpack_vector(raw: bytes) -> Vector:
    """The vector in a frame's header."""
    return struct.unpack(">7H", raw)


@dataclass(frozen=True, slots=True)
class Raise:
    """A node got a new epoch. `kc` holds the commitments of its keys of classes m, d, x."""

    path: tuple[str, ...]
    epoch: int
    activate_ms: int
    policy_epoch: int
    kc: tuple[bytes, ...] = (bytes(32),) * _CLASSES
    shreddable: bool = False
    #: the epochs above it when it was raised; its own is the last
    above: Vector = ()

    @property
    def vector(self) -> Vector:
        """Epochs from the root to this node."""
        return (OUTSIDE,) * DEPTH + (self.epoch,) if self.shreddable else (*self.above, self.epoch)

    @property
    def shredded(self) -> bool:
        """Whether the voters erased its keys: then the commitments are zeros."""
        return self.shreddable and not any(map(any, self.kc))

    def encode(self) -> bytes:
        """flags 1 | n_tokens 1 | path | epochs u16 x (n_tokens + 1) | activate_ms 8 | policy_epoch 4 | kc 3 x 32"""
        path = b"".join(bytes([len(token)]) + token.encode() for token in self.path)
        vector = struct.pack(f">{len(self.path) + 1}H", *self.vector)
        head = bytes([int(self.shreddable), len(self.path)]) + path + vector
        return head + struct.pack(">QI", self.activate_ms, self.policy_epoch) + b"".join(self.kc)

    @classmethod
    def read(cls, reader: Reader) -> Raise:
        """Take one off.

        :raises FrameRejected: with reason `short`, `format` or `epoch`
        """
        flags, n_tokens = reader.unpack(">BB")
        if flags > 1 or n_tokens > DEPTH or (flags and n_tokens != DEPTH):
            raise FrameRejected("format", "a raised node")
        path = tuple(reader.text() for _ in range(n_tokens))
        vector: Vector = reader.unpack(f">{n_tokens + 1}H")
        activate_ms, policy_epoch = reader.unpack(">QI")
        kc = tuple(reader.take(32) for _ in range(_CLASSES))
        if flags:
            if vector[:-1] != (OUTSIDE,) * DEPTH:
                raise FrameRejected("epoch", "vector of a shreddable route")
            return cls(path, vector[-1], activate_ms, policy_epoch, kc, True)
        if max(vector) > EPOCH_MAX:
            raise FrameRejected("epoch", "beyond the last epoch")
        return cls(path, vector[-1], activate_ms, policy_epoch, kc, False, vector[:-1])


@dataclass(frozen=True)
class Epochs:
    """All raises, in the order they were made. Immutable; a new one takes its place."""

    raises: tuple[Raise, ...] = ()
    _lines: dict[tuple[str, ...], tuple[tuple[int, Vector], ...]] = field(
        default_factory=dict[tuple[str, ...], tuple[tuple[int, Vector], ...]], compare=False, repr=False
    )

    def timeline(self, tokens: tuple[str, ...]) -> tuple[tuple[int, Vector], ...]:
        """(from ms, vector of the node at `tokens`) in order; cached, because every frame asks."""
        found = self._lines.get(tokens)
        if found is None:
            found = self._lines[tokens] = self._timeline(tokens)
        return found

    def _timeline(self, tokens: tuple[str, ...]) -> tuple[tuple[int, Vector], ...]:
        size = len(tokens) + 1
        line: list[tuple[int, Vector]] = [(0, (0,) * size)]
        own = [one for one in self.raises if one.shreddable and one.path == tokens]
        for one in own or self.raises:
            if one.shreddable and not own:
                continue
            if tokens[: len(one.path)] == one.path:
                line.append((one.activate_ms, (one.vector + (0,) * size)[:size]))
        return tuple(line[1:] if own else line)

    def vector(self, tokens: tuple[str, ...], at_ms: int) -> Vector:
        """The epochs a sender seals under at a time."""
        return self.span(tokens, at_ms)[0]

    def span(self, tokens: tuple[str, ...], at_ms: int) -> tuple[Vector, int, int]:
        """(the epochs a sender seals under at a time, from ms, until ms)."""
        line = self.timeline(tokens)
        current, since_ms, until_ms = line[0][1], 0, _FORWARD_MS
        for from_ms, vector in line:
            if from_ms <= at_ms:
                current, since_ms, until_ms = vector, from_ms, _FORWARD_MS
            elif until_ms == _FORWARD_MS:
                until_ms = from_ms
        return current, since_ms, until_ms

    def outside(self, tokens: tuple[str, ...]) -> bool:
        """Whether the route at `tokens` stands outside the tree."""
        return self.timeline(tokens)[0][1][0] == OUTSIDE

    def judge(
        self, tokens: tuple[str, ...], vector: Vector, sent_ms: int, now_ms: int
    ) -> Literal["known", "next", "no"]:
        """Whether a frame under `vector` is to be opened, kept for a moment, or refused."""
        line = self.timeline(tokens)
        for place, (_, known) in enumerate(line):
            if known == vector:
                ends_ms = line[place + 1][0] + OVERLAP_MS if place + 1 < len(line) else _FORWARD_MS
                return "known" if sent_ms <= ends_ms and now_ms <= ends_ms else "no"
        return "next" if _follows(line[-1][1], vector) else "no"

    def next_of(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], Vector]:
        """(node, its vector) that raising `path` makes; a node at its last epoch raises its parent."""
        last = self.timeline(path)[-1][1]
        while last[-1] >= EPOCH_MAX and path:
            path, last = path[:-1], last[:-1]
        if last[-1] >= EPOCH_MAX:
            raise FrameRejected("epoch", "the root has no further epoch")
        return path, (*last[:-1], last[-1] + 1)

    def with_raise(self, one: Raise, now_ms: int) -> Epochs:
        """Add one; what no frame can be under any more is left out.

        :raises FrameRejected: with reason `limit` if too many nodes are raised; rotate a node above them
        """
        kept = (*self._live(now_ms), one)
        if len(kept) > RAISES_MAX:
            raise FrameRejected("limit", f"more than {RAISES_MAX} raised nodes; rotate a node above them")
        return Epochs(kept)

    def _live(self, now_ms: int) -> Iterable[Raise]:
        """Raises that are the newest of their node, or were until a moment ago."""
        for place, one in enumerate(self.raises):
            later = [
                after
                for after in self.raises[place + 1 :]
                if after.shreddable == one.shreddable and one.path[: len(after.path)] == after.path
            ]
            # Shredded and superseded epochs outside the tree stay listed: their numbers are never used again.
            if one.shreddable or all(after.activate_ms + 2 * OVERLAP_MS > now_ms for after in later):
                yield one


def _follows(last: Vector, vector: Vector) -> bool:
    """Whether one component is one higher, those before equal and those below it 0."""
    for place, (old, new) in enumerate(zip(last, vector, strict=True)):
        if old != new:
            outside = last[0] == OUTSIDE
            return new == old + 1 and (outside or not any(vector[place + 1 :]))
    return False
