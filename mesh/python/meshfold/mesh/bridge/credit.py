"""What readers on other nodes still take of a shared route: the producer's side of credit over the wire (S6, S7).

A reader that something holds up tells `at` which number of ours it has, and how many events and bytes it takes on top of
that. Both are absolute, so a word that is lost or comes twice changes nothing: the next one heals it. What may leave is the
least over all such readers; who does not hold anything up tells nothing and is not asked. A reader repeats its word for each
of our heartbeats, and one that is not heard for some of them holds nobody up any more: no clock is read here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from meshfold.core.policy import FarReader
from meshfold.mesh.records import Credit

__all__ = ("BEATS_MISSED_MAX", "READERS_MAX", "FarCredit")

#: Readers that may hold one route up; one more is refused.
READERS_MAX: Final = 256
#: Heartbeats of ours without a word, after which a reader is taken for gone: as many as a member may miss.
BEATS_MISSED_MAX: Final = 5
#: Frames whose bytes are remembered one by one; before that, a reader's bytes are counted from the oldest of them.
FRAMES_MAX: Final = 4096
NO_LIMIT: Final = 2**63


@dataclass(slots=True)
class _Reader:
    name: str
    incarnation: bytes
    at: int
    events: int
    size: int | None
    missed: int = 0
    waits: int = 0


class FarCredit:
    """The readers of one route that hold it up, by their tags."""

    def __init__(self) -> None:
        self._readers: dict[bytes, _Reader] = {}
        #: last number and bytes sent up to it, of each frame
        self._sent: deque[tuple[int, int]] = deque(maxlen=FRAMES_MAX)
        self._sent_seq = 0
        self._sent_bytes = 0
        #: words that were taken, events that were granted and never used, readers that fell silent
        self.told, self.revoked, self.expired = 0, 0, 0

    def take(self, tag: bytes, name: str, incarnation: bytes, credit: Credit) -> bool:
        """Take a reader's word in; False if there is no place for one more."""
        known = self._readers.get(tag)
        if credit.events is None:
            self._remove(tag)
        elif known is None and len(self._readers) >= READERS_MAX:
            return False
        else:
            waits = known.waits if known is not None and known.incarnation == incarnation else 0
            self._readers[tag] = _Reader(
                name, incarnation, credit.at, credit.events, credit.payload_bytes, waits=waits
            )
        self.told += 1
        return True

    def beat(self) -> bool:
        """A heartbeat of ours goes out: whether a reader that answered none of the last ones was given up."""
        before = len(self._readers)
        for tag, reader in list(self._readers.items()):
            reader.missed += 1
            if reader.missed > BEATS_MISSED_MAX:
                self.expired += 1
                self._remove(tag)
        return len(self._readers) < before

    def _remove(self, tag: bytes) -> None:
        gone = self._readers.pop(tag, None)
        if gone is not None:
            self.revoked += self._left(gone)[0]

    def sent(self, last_seq: int, size: int) -> None:
        """A frame went out: its last number, its bytes."""
        self._sent_seq = last_seq
        self._sent_bytes += size
        self._sent.append((last_seq, self._sent_bytes))

    def left(self) -> tuple[int, int]:
        """(events, bytes) that may leave now, both above 0 or nothing may; an event of any size may while bytes are left."""
        lefts = [self._left(reader) for reader in self._readers.values()]
        return min((events for events, _ in lefts), default=NO_LIMIT), min(
            (size for _, size in lefts), default=NO_LIMIT
        )

    def note_wait(self) -> None:
        """Something waits: count it for the readers that it waits for."""
        for reader in self._readers.values():
            if 0 in self._left(reader):
                reader.waits += 1

    def _left(self, reader: _Reader) -> tuple[int, int]:
        # Numbers that were skipped count as sent until the reader has told of them: too little, never too much.
        events = max(0, reader.events - max(0, self._sent_seq - reader.at))
        if reader.size is None:
            return events, NO_LIMIT
        return events, max(0, reader.size - (self._sent_bytes - self._bytes_at(reader.at)))

    def _bytes_at(self, seq: int) -> int:
        """Bytes of the frames whose numbers are all up to `seq`."""
        place = bisect_right(self._sent, seq, key=lambda frame: frame[0])
        if place:
            return self._sent[place - 1][1]
        # Before the first, or before what is remembered: then all of it counts as not taken yet.
        return 0

    def readers(self) -> list[FarReader]:
        """Every reader that holds the route up, by name."""
        rows = []
        for reader in list(self._readers.values()):
            events, size = self._left(reader)
            rows.append(
                FarReader(
                    name=reader.name,
                    window=reader.events,
                    granted=reader.at + reader.events,
                    on_the_way=max(0, self._sent_seq - reader.at),
                    available=events,
                    available_bytes=None if reader.size is None else size,
                    waits=reader.waits,
                )
            )
        return sorted(rows, key=lambda row: row.name)
