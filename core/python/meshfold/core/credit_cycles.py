"""Loops in which every queue holds its producers up: when all are full, nothing moves (S7, S22)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshfold.core.operator import operator_rows

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("credit_cycles",)

#: Operators whose results begin a turn of their own and which lose, counted, rather than hold anybody up.
_BOUNDARIES = ("await_ack", "next_epoch")


def credit_cycles(graph: Graph) -> list[tuple[str, ...]]:
    """Such loops, each once: its routes in their order, beginning at the first by name.

    Loops may share routes, and there may be more of them than can be listed. Told is one for each step of a search that comes
    back to where it passed: none is told if and only if there is none.
    """
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
    gates = {info.edge for info in graph.edge_credit() if info.gate}
    for source, sink, number in graph.flows():
        # A queue that loses, coalesces or goes on on disk lets the others move.
        if number is None or number in gates:
            leads(source.text, sink.text)
    return _cycles(ahead)


def _cycles(ahead: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """One cycle for each step that leads back into the path under way; every route is entered once."""
    found: set[tuple[str, ...]] = set()
    done: set[str] = set()
    for start in sorted(ahead):
        # The path under way, each of its routes with those of its sinks that were not looked at yet.
        circling = {} if start in done else {start: _sinks(ahead, start)}
        while circling:
            last = next(reversed(circling))
            sink = next(circling[last], None)
            if sink is None:
                del circling[last]
                done.add(last)
            elif sink in circling:
                found.add(_from_first([*circling], sink))
            elif sink not in done:
                circling[sink] = _sinks(ahead, sink)
    return sorted(found)


def _sinks(ahead: dict[str, set[str]], source: str) -> Iterator[str]:
    return iter(sorted(ahead.get(source, ())))


def _from_first(path: list[str], back_to: str) -> tuple[str, ...]:
    """The end of the path that is a loop, beginning at the first of its routes by name."""
    cycle = path[path.index(back_to) :]
    turn = cycle.index(min(cycle))
    return (*cycle[turn:], *cycle[:turn])
