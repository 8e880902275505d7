"""Where frames wait whose key is on its way: a rotation overtook its packet. Bounded in number, bytes and time.

Later frames of the same sender on the same route wait behind them, so that order holds. What is still here after the time
is given up, counted as `dropped(epoch_unknown)` by its bridge.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshfold.core.ports import Message

__all__ = ("Park",)

FRAMES_MAX: Final = 1024
BYTES_MAX: Final = 4 * 1024 * 1024
AGE_MS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class _Parked:
    owner: str
    sender: bytes
    message: Message
    at_ms: int
    again: Callable[[Message], None]
    give_up: Callable[[Message], None]


class Park:
    """Frames of all bridges of a node, in the order they came."""

    def __init__(self) -> None:
        self._waiting: deque[_Parked] = deque()
        self._held: Counter[tuple[str, bytes]] = Counter()
        self._size_bytes = 0
        #: frames that ever waited, and those given up
        self.parked = 0
        self.given_up = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, owner: str, sender: bytes) -> bool:
        """Whether frames of this sender wait for this bridge."""
        return self._held[owner, sender] > 0

    def add(
        self,
        owner: str,
        sender: bytes,
        message: Message,
        now_ms: int,
        again: Callable[[Message], None],
        give_up: Callable[[Message], None],
    ) -> None:
        """Let a frame wait; without room it is given up at once."""
        if len(self._waiting) >= FRAMES_MAX or self._size_bytes + len(message.data) > BYTES_MAX:
            self.given_up += 1
            give_up(message)
            return
        self._waiting.append(_Parked(owner, sender, message, now_ms, again, give_up))
        self._held[owner, sender] += 1
        self._size_bytes += len(message.data)
        self.parked += 1

    def release(self) -> None:
        """Give every frame to its bridge again: keys have come. Those that still lack one wait on from their first day."""
        waiting, self._waiting = self._waiting, deque()
        self._held.clear()
        self._size_bytes = 0
        for one in waiting:
            before = len(self._waiting)
            one.again(one.message)
            if len(self._waiting) > before:
                last = self._waiting.pop()
                self._waiting.append(
                    _Parked(last.owner, last.sender, last.message, one.at_ms, last.again, last.give_up)
                )
                self.parked -= 1

    def expire(self, now_ms: int) -> None:
        """Give up what waited too long."""
        while self._waiting and now_ms - self._waiting[0].at_ms > AGE_MS_MAX:
            one = self._waiting.popleft()
            self._held[one.owner, one.sender] -= 1
            self._size_bytes -= len(one.message.data)
            self.given_up += 1
            one.give_up(one.message)
