"""Loops in which every queue holds its producers up: when all are full, nothing moves (S7, S22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshfold.core.operator import operator_rows

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("credit_cycles",)

#: Operators whose results begin a turn of their own and which lose, counted, rather than hold anybody up.
_BOUNDARIES = ("await_ack", "next_epoch")


def credit_cycles(graph: Graph) -> list[tuple[str, ...]]:
    """The routes of each such loop, in its order; each loop once, beginning at the first of its routes by name."""
    ahead: dict[str, set[str]] = {}

    def leads(source: str, sink: str) -> None:
        ahead.setdefault(source, set()).add(sink)

    for info in operator_rows(graph):
        if any(stage.kind in _BOUNDARIES for stage in info.stages):
            continue
        outputs = [info.sink] if info.sink is not None else []
        for sink in (*outputs, *(r for _, _, r in info.sides)):
            for source, _, _ in info.inputs:
                leads(source.text, sink.text)
    gates = {info.edge for info in graph.credit_snapshot() if info.gate}
    for source, sink, number in graph.flows():
        # A queue that loses, coalesces or goes on on disk lets the others move.
        if number is None or number in gates:
            leads(source.text, sink.text)
    return _cycles(ahead)


def _cycles(ahead: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """One cycle for each route that the search comes back to."""
    found: set[tuple[str, ...]] = set()
    done: set[str] = set()
    for start in sorted(ahead):
        path: list[str] = []
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            at, depth = stack.pop()
            del path[depth:]
            if at in path:
                cycle = path[path.index(at) :]
                first = cycle.index(min(cycle))
                found.add((*cycle[first:], *cycle[:first]))
            elif at not in done:
                path.append(at)
                stack += [(sink, len(path)) for sink in sorted(ahead.get(at, ()), reverse=True)]
        done |= _reached(ahead, start)
    return sorted(found)


def _reached(ahead: dict[str, set[str]], start: str) -> set[str]:
    seen, open_ = {start}, [start]
    while open_:
        for sink in ahead.get(open_.pop(), ()):
            if sink not in seen:
                seen.add(sink)
                open_.append(sink)
    return seen
