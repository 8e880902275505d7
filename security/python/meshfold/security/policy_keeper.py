"""What policy a node holds: the highest it ever saw, how fresh its knowledge is, and what its age forbids.

Invariants: the rank (policy epoch, log index) never goes back, over restarts too, because `save` runs before anything is
changed; a jump of more than JUMP_MAX epochs needs a voter's answer to a fresh nonce, so that a stolen old signature of
a far future cannot freeze a node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.identity import Identity
from meshfold.security.policy_record import PolicyRecord, voters_hash

__all__ = ("FRESH_MS", "GRACE_MS", "HEARTBEAT_MS", "PolicyKeeper")

#: Voters tell the policy so often.
HEARTBEAT_MS: Final = 5_000
#: Without a fresh one for so long, nothing new is opened or granted.
FRESH_MS: Final = 30_000
#: What runs goes on for so long without one; frames made under a policy superseded longer ago are refused.
GRACE_MS: Final = 60_000
JUMP_MAX: Final = 2**10
_LEARNED_MAX: Final = 256


class PolicyKeeper:
    """Keeps the highest record. `save` makes a record durable; time comes in as monotonic ms."""

    def __init__(
        self, cluster: bytes, voters: Callable[[], Mapping[bytes, Identity]], save: Callable[[bytes], None]
    ) -> None:
        self._cluster = cluster
        self._voters = voters
        self._save = save
        self.record = PolicyRecord(cluster, voters_hash(voters().values()), 0, 0)
        #: (policy epoch, when it was learned)
        self._learned: deque[tuple[int, int]] = deque(maxlen=_LEARNED_MAX)
        self._heard_ms: int | None = None
        #: records refused because they would go back: a broker that repeats old ones
        self.rollbacks = 0

    def restore(self, raw: bytes, now_ms: int) -> None:
        """Take what `save` wrote in an earlier life; it is not fresh, and its voters may have changed since.

        :raises FrameRejected: if it is damaged
        """
        record = PolicyRecord.parse(raw)
        if record.cluster != self._cluster:
            raise FrameRejected("cluster", "a policy of another mesh")
        self.record = record
        self._learned.append((record.policy_epoch, now_ms))

    def take(self, raw: bytes, now_ms: int, *, fresh: bool = False) -> bool:
        """Take a record in; True if it replaced the one held.

        :param fresh: it answers a nonce of ours, so it may jump
        :raises FrameRejected: `policy` if it goes back or jumps; else as `PolicyRecord.parse` and `verify`
        """
        record = PolicyRecord.parse(raw)
        record.verify(self._cluster, self._voters())
        if record.rank < self.record.rank:
            self.rollbacks += 1
            raise FrameRejected("policy", f"an older policy: epoch {record.policy_epoch}")
        if record.policy_epoch > self.record.policy_epoch + JUMP_MAX and not fresh:
            raise FrameRejected("policy", f"a jump to policy epoch {record.policy_epoch}", jump=True)
        self._heard_ms = now_ms
        if record.rank == self.record.rank and record.head() == self.record.head():
            if not self._learned:
                self._learned.append((record.policy_epoch, now_ms))
            return False
        self._save(raw)
        self.record = record
        self._learned.append((record.policy_epoch, now_ms))
        return True

    def age_ms(self, now_ms: int) -> int | None:
        """How long ago a voter's word was heard; None if never in this life."""
        return None if self._heard_ms is None else now_ms - self._heard_ms

    def fresh(self, now_ms: int) -> bool:
        """Whether new sessions may be opened."""
        return self._heard_ms is not None and now_ms - self._heard_ms <= FRESH_MS

    def in_grace(self, now_ms: int) -> bool:
        """Whether what runs may go on."""
        return self._heard_ms is not None and now_ms - self._heard_ms <= GRACE_MS

    def check_sender(self, policy_epoch: int, now_ms: int) -> None:
        """Refuse a frame made under a policy that was superseded longer than the grace ago.

        :raises FrameRejected: with reason `policy`
        """
        if policy_epoch >= self.record.policy_epoch:
            return
        for epoch, at_ms in self._learned:
            if epoch > policy_epoch:
                if now_ms - at_ms > GRACE_MS:
                    raise FrameRejected("policy", f"made under policy epoch {policy_epoch}")
                return
