"""When a key is due: by its age, and by how much was sealed under it. A state machine; time and counts come in."""

from __future__ import annotations

from typing import Final

__all__ = ("RotationPlan",)

#: The root gets a new epoch so often, and with it everything below.
AGE_MS_MAX: Final = 7 * 24 * 3_600_000
#: A route gets a new epoch after so many frames, whoever sealed them.
FRAMES_MAX: Final = 2**32
ROUTES_MAX: Final = 16_384
Path = tuple[str, ...]


class RotationPlan:
    """Counts frames by route and producer life, and remembers when each node was rotated."""

    def __init__(self, *, age_ms_max: int = AGE_MS_MAX, frames_max: int = FRAMES_MAX) -> None:
        self._age_ms_max = age_ms_max
        self._frames_max = frames_max
        self._root_ms: int | None = None
        #: route -> (producer's life -> frames it stated), and frames at the last rotation
        self._frames: dict[Path, dict[tuple[bytes, bytes], int]] = {}
        self._base: dict[Path, int] = {}

    def sealed(self, path: Path, producer: bytes, incarnation: bytes, frames: int) -> None:
        """Take in how many frames a producer's life has sealed on a route."""
        if path not in self._frames and len(self._frames) >= ROUTES_MAX:
            return
        self._frames.setdefault(path, {})[producer, incarnation] = frames

    def rotated(self, path: Path, now_ms: int) -> None:
        """Note that a node got a new epoch: whatever stands below it begins anew."""
        if not path:
            self._root_ms = now_ms
        for route, lives in self._frames.items():
            if route[: len(path)] == path:
                self._base[route] = sum(lives.values())

    def due(self, now_ms: int) -> list[Path]:
        """Nodes to rotate now; the root covers every route."""
        if self._root_ms is None:
            self._root_ms = now_ms
        if now_ms - self._root_ms >= self._age_ms_max:
            return [()]
        return [
            route
            for route, lives in self._frames.items()
            if sum(lives.values()) - self._base.get(route, 0) >= self._frames_max
        ]
