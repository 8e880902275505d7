"""Health and metrics of `meshfold up` as a whole: every node asked for its vitals, judged together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from meshfold.core.errors import MeshfoldError
from meshfold.mesh.node import Node

__all__ = ("Probes",)

ASK_S: Final = 2.0


class Probes:
    """What the health port of `up` shows. `alive` says whether a node's process runs."""

    def __init__(self, names: Sequence[str], alive: Callable[[str], bool]) -> None:
        self._names = names
        self._alive = alive
        self.operator: Node | None = None

    @property
    def started(self) -> bool:
        """Whether every node was ready once."""
        return self.operator is not None

    async def vitals(self) -> dict[str, dict[str, Any] | None]:
        """By node; None: it is gone or does not answer."""
        if self.operator is None:
            return {}
        try:
            everyone = await self.operator.query("vitals", timeout=ASK_S)
        except MeshfoldError:
            everyone = {"answers": {}}
        return {name: everyone["answers"].get(name) if self._alive(name) else None for name in self._names}
