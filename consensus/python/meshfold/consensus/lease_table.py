"""The voter's side of leases, as a state machine: who holds which election, and until when nobody else may.

Time is an input. Rules: a lease is granted by a log entry and its token is that entry's index; a campaign with the claim that
already holds gets the same token again (its answer may have been lost); after a step-down the one who held may not come back
for a while, so that another can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshfold.consensus.timing import LeaseTiming
from meshfold.consensus.token import Token
from meshfold.core.errors import Fenced

__all__ = ("Busy", "Holder", "Leadership", "LeaseTable", "Wanted")

#: How long the one that was told to step down stays out, in leases.
BARRED_LEASES: Final = 4
RETRY_MS_MIN: Final = 20
RETRY_MS_MAX: Final = 250


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks or holds: the node's id and name, and the claim that is new for every campaign."""

    id: str
    name: str
    claim: str


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads an election."""

    token: Token
    #: name of the node that holds the lease
    leader: str
    #: hex id of that node
    leader_id: str


@dataclass(frozen=True, slots=True)
class Busy:
    """The campaign cannot win now; ask again after `retry_ms`."""

    leader: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The lease is free: write the grant to the log, then call `granted`, or `forget` where that failed."""


@dataclass(slots=True)
class _Lease:
    holder: Holder
    number: int
    free_at_ns: int
    stepping_down: bool = False


class LeaseTable:
    """All leases of one leader of the voters. What the log holds of a name it does not know is to be `inherit`ed first."""

    def __init__(self, timing: LeaseTiming, since_ns: int) -> None:
        """Begin to lead at `since_ns` on the monotonic clock."""
        self.timing = timing
        self._since_ns = since_ns
        self._leases: dict[str, _Lease] = {}
        self._pending: dict[str, Holder] = {}
        self._barred: dict[str, tuple[str, int]] = {}

    def knows(self, name: str) -> bool:
        """Whether the election's state here is current."""
        return name in self._leases or name in self._pending

    def inherit(self, name: str, holder: Holder, number: int) -> None:
        """Take over a lease that the log holds, extended once: an earlier leader may have renewed it."""
        self._leases.setdefault(name, _Lease(holder, number, self._since_ns + self.timing.inherited_ns))

    def forget(self, name: str) -> None:
        """Drop a name whose grant may or may not be in the log. The lease was free, so nothing renewed is lost by it."""
        self._leases.pop(name, None)
        self._pending.pop(name, None)

    def campaign(self, name: str, asker: Holder, now_ns: int) -> Wanted | Busy | Token:
        """Ask for the lease: a token if this very claim holds it, `Wanted` if it is free, else `Busy`."""
        lease = self._leases.get(name)
        if name in self._pending:
            return Busy(self._pending[name].name, RETRY_MS_MIN)
        if lease is not None and lease.holder == asker and not lease.stepping_down:
            lease.free_at_ns = now_ns + self.timing.kept_ns
            return Token(name, lease.number)
        if lease is not None and now_ns < lease.free_at_ns:
            return Busy(lease.holder.name, self._retry_ms(lease.free_at_ns - now_ns))
        barred, until_ns = self._barred.get(name, ("", 0))
        if barred == asker.id and now_ns < until_ns:
            return Busy("", self._retry_ms(until_ns - now_ns))
        self._pending[name] = asker
        return Wanted()

    @staticmethod
    def _retry_ms(wait_ns: int) -> int:
        return min(RETRY_MS_MAX, max(RETRY_MS_MIN, wait_ns // 1_000_000 + 1))

    def granted(self, name: str, number: int, now_ns: int) -> Token:
        """The pending grant is in the log with this index."""
        holder = self._pending.pop(name)
        self._leases[name] = _Lease(holder, number, now_ns + self.timing.kept_ns)
        self._barred.pop(name, None)
        return Token(name, number)

    def keep_alive(self, name: str, holder_id: str, number: int, now_ns: int) -> None:
        """Renew the lease.

        :raises Fenced: if somebody else holds it or is about to, or the holder was told to step down
        """
        lease = self._leases.get(name)
        highest = lease.number if lease is not None else 0
        if (
            lease is None
            or (lease.number, lease.holder.id) != (number, holder_id)
            or lease.stepping_down
            or name in self._pending
        ):
            raise Fenced(
                f"the lease {name}:{number} is over",
                fix="campaign again",
                name=name,
                token=number,
                highest=highest,
            )
        lease.free_at_ns = max(lease.free_at_ns, now_ns + self.timing.kept_ns)

    def step_down(self, name: str, now_ns: int) -> Leadership | None:
        """Renew no more for the one who holds it, and keep it out for a while; who that is, or None."""
        lease = self._leases.get(name)
        if lease is None or now_ns >= lease.free_at_ns:
            return None
        lease.stepping_down = True
        self._barred = {key: bar for key, bar in self._barred.items() if now_ns < bar[1]}
        self._barred[name] = (lease.holder.id, lease.free_at_ns + BARRED_LEASES * self.timing.held_ns)
        return Leadership(Token(name, lease.number), lease.holder.name, lease.holder.id)

    def resigned(self, name: str, holder_id: str, number: int) -> bool:
        """Free the lease at once if this is the one that holds it; whether it was."""
        lease = self._leases.get(name)
        if lease is None or (lease.number, lease.holder.id) != (number, holder_id) or name in self._pending:
            return False
        del self._leases[name]
        return True

    def current(self, name: str, now_ns: int) -> Leadership | None:
        """Who holds the lease now."""
        lease = self._leases.get(name)
        if lease is None or now_ns >= lease.free_at_ns:
            return None
        return Leadership(Token(name, lease.number), lease.holder.name, lease.holder.id)

    def idle(self, now_ns: int) -> list[str]:
        """Names whose lease ran out and that nobody is taking."""
        return [
            name
            for name, lease in self._leases.items()
            if now_ns >= lease.free_at_ns and name not in self._pending
        ]
