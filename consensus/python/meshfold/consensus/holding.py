"""The holder's side of a lease, as a state machine: may it still act? Time is an input.

Rules (CONSENSUS 1.6): the lease ends `lease_ms` after the holder *sent* the last keep-alive that was answered, not after the
answer came; an answer that comes when the lease is over does not bring it back.
"""

from __future__ import annotations

__all__ = ("Holding",)


class Holding:
    """One lease as its holder knows it."""

    def __init__(self, *, sent_ns: int, held_ns: int, now_ns: int) -> None:
        """Begin with the answer to a campaign that was sent at `sent_ns`."""
        self._held_ns = held_ns
        self._end_ns = sent_ns + held_ns
        self._over = now_ns >= self._end_ns

    @property
    def end_ns(self) -> int:
        """When it ends unless a keep-alive is answered, on the holder's monotonic clock."""
        return self._end_ns

    def valid(self, now_ns: int) -> bool:
        """Whether the holder may act; once it may not, it never may again."""
        self._over = self._over or now_ns >= self._end_ns
        return not self._over

    def answered(self, sent_ns: int, now_ns: int) -> None:
        """Take in the answer to the keep-alive that was sent at `sent_ns`; answers may come late, twice and in any order."""
        if self.valid(now_ns):
            self._end_ns = max(self._end_ns, sent_ns + self._held_ns)

    def give_up(self) -> None:
        """End it now: it was refused, or is given back."""
        self._over = True
