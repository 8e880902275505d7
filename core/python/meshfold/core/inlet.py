"""`Inlet`: encoded batches of remote producers enter the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshfold.core.flow import EdgeCounters, InletReceipt
from meshfold.core.registry import Taint
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Inlet",)


class Inlet:
    """The receiving end of a bridge. Events keep producer, incarnation and number; duplicates are counted, not delivered."""

    def __init__(self, graph: Graph, r: Route[Any], name: str) -> None:
        self._graph = graph
        self._route = r
        self.name = name

    def push(
        self,
        meta: bytes,
        payload: bytes | None,
        *,
        producer: bytes,
        incarnation: bytes,
        taints: Sequence[Taint] = (),
    ) -> InletReceipt:
        """Take in one batch (MB1). `payload` None is the metadata-only form.

        :raises DecodeError: with reason `batch` if the bytes are not one; nothing changed then
        """
        return InletReceipt(
            *self._graph.push_batch(self._route, meta, payload, producer, incarnation, taints)
        )

    def expect(self, producer: bytes, incarnation: bytes, last_seq: int) -> int:
        """Take in a proof that numbers up to `last_seq` were sent; returns how many are newly `link_loss`."""
        return self._graph.expect_seq(self._route, producer, incarnation, last_seq)

    def counters(self) -> list[tuple[bytes, bytes, EdgeCounters, int]]:
        """(producer, incarnation, counters, last number) of every remote producer."""
        return [
            (producer, incarnation, EdgeCounters(*row), last)
            for producer, incarnation, row, last, _ in self._graph.track_rows(self._route)
        ]

    def attach_seq(self, producer: bytes, incarnation: bytes) -> int:
        """The first number counted: where this reader attached; 0 for a producer not heard of."""
        for row in self._graph.track_rows(self._route):
            if row[:2] == (producer, incarnation):
                return int(row[4])
        return 0
