"""Budgets: the rates that caveats of a grant allow, kept by the receiver that serves them.

A token bucket for each (grant, kind) holds one second's worth; what does not fit is refused whole, and takes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.core.ports import Decision
from meshfold.security.caveat import CaveatKind

__all__ = ("Budgets",)

BUCKETS_MAX: Final = 16_384


class Budgets:
    """What is left of every limited grant. Time comes in with each call."""

    def __init__(self) -> None:
        #: (grant hash, kind) -> (left, at in ns)
        self._buckets: OrderedDict[tuple[bytes, int], tuple[float, int]] = OrderedDict()

    def spend(self, decision: Decision, *, events: int, size_bytes: int, now_ns: int) -> None:
        """Take `events` and `size_bytes` off what the deciding grant allows.

        :param now_ns: monotonic
        :raises FrameRejected: with reason `limit` if it allows less; nothing was taken then
        """
        taken: list[tuple[tuple[bytes, int], tuple[float, int]]] = []
        for kind, limit in decision.limits:
            if kind == CaveatKind.OPEN_BYTES:
                if size_bytes > limit:
                    raise FrameRejected("limit", f"{size_bytes} bytes, the grant opens at most {limit}")
                continue
            wanted = events if kind == CaveatKind.EVENTS_PER_S else size_bytes
            left, at = self._buckets.get((decision.grant, kind), (float(limit), now_ns))
            left = min(float(limit), left + (now_ns - at) / 1e9 * limit)
            if wanted > left:
                raise FrameRejected("limit", f"{CaveatKind(kind).name} of the grant is {limit}")
            taken.append(((decision.grant, kind), (left - wanted, now_ns)))
        for key, bucket in taken:
            self._buckets.pop(key, None)
            self._buckets[key] = bucket
        while len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
