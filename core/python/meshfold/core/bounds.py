"""Declared bounds of a route's taints: what a reader may rely on before any event comes (S29)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshfold._native import GraphBase, bound_taints, taint_bound
from meshfold.core.registry import Taint
from meshfold.core.route import Route

__all__ = ("Bounded", "TaintBound")


@dataclass(frozen=True, slots=True)
class TaintBound:
    """What events of a route may be tainted, and what they have been.

    :param declared: the most they may be; None: nothing was declared, anything may come
    :param seen: what any event ever was, of this graph's life; it does not shrink when events are forgotten
    """

    route: str
    declared: frozenset[Taint] | None
    seen: frozenset[Taint]


class Bounded(GraphBase):
    """The part of `Graph` that declares bounds of taints."""

    def bound_taints(self, r: Route[Any], taints: Iterable[Taint | str]) -> None:
        """Declare the most that events of a route may be tainted; values that mean nothing is wrong always may.

        From here on an event above it is refused before it has a number: a publish with TaintExceeded, what an operator or
        a connection made as that one's failure, a batch from elsewhere as a whole. A bound only grows.

        :param taints: none: the route is without taints for ever
        :raises WiringError: for an unknown taint
        :raises TaintExceeded: if it is less than was declared before, or than events have carried; nothing has changed
        """
        bound_taints(self, r, [str(taint) for taint in taints])

    def taint_bound(self, r: Route[Any]) -> TaintBound:
        """What was declared of a route's taints, and what was ever seen of them."""
        declared, seen = taint_bound(self, r)
        return TaintBound(
            r.text,
            None if declared is None else frozenset(map(Taint, declared)),
            frozenset(map(Taint, seen)),
        )
