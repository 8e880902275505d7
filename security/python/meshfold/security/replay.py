"""Replay windows: each (route or subject, sender, incarnation, generation, form) takes a counter once.

A window of 1,024 counters; below it everything counts as seen. The number of windows is bounded: the longest unused goes,
and with it only the ability to accept - its place in the order of incarnations stays.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from meshfold.core.errors import FrameRejected

__all__ = ("ReplayGuard",)

WINDOW: Final = 1024
WINDOWS_MAX: Final = 65_536
INCARNATIONS_MAX: Final = 65_536
#: A predecessor's frames are taken for so long after its successor began (SECURITY: incarnations).
OVERLAP_MS: Final = 60_000


class ReplayGuard:
    """Checks first, commits after everything else held: a refused frame changes nothing."""

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[bytes, ...], tuple[int, int]] = OrderedDict()
        self._newest: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def check(self, key: tuple[bytes, ...], counter: int) -> None:
        """Refuse a counter seen before or below the window, with reason `replay`; 2^64-1 with `limit`."""
        if counter >= 2**64 - 2:
            raise FrameRejected("limit", "frame counter")
        top, bits = self._windows.get(key, (-1, 0))
        if counter > top:
            return
        if top - counter >= WINDOW or bits >> (top - counter) & 1:
            raise FrameRejected("replay", "seen before")

    def check_incarnation(self, sender: bytes, incarnation: bytes, hlc_ms: int) -> None:
        """Refuse an incarnation older than the newest known, beyond the overlap, with reason `incarnation`."""
        newest = self._newest.get(sender)
        if newest is not None and newest[0] != incarnation and hlc_ms < newest[1] - OVERLAP_MS:
            raise FrameRejected("incarnation", "an older life of the sender")

    def commit(
        self, key: tuple[bytes, ...], counter: int, sender: bytes, incarnation: bytes, hlc_ms: int
    ) -> None:
        """Note an accepted frame."""
        top, bits = self._windows.pop(key, (-1, 0))
        if counter > top:
            bits = (bits << (counter - top) if top >= 0 and counter - top < WINDOW else 0) | 1
            top = counter
        else:
            bits |= 1 << (top - counter)
        self._windows[key] = (top, bits & ((1 << WINDOW) - 1))
        if len(self._windows) > WINDOWS_MAX:
            self._windows.popitem(last=False)
        newest = self._newest.get(sender)
        if newest is None or (newest[0] != incarnation and hlc_ms > newest[1]):
            self._newest[sender] = (incarnation, hlc_ms)
            if len(self._newest) > INCARNATIONS_MAX:
                self._newest.popitem(last=False)

    def fingerprint(self) -> bytes:
        """A digest of the windows and incarnations."""
        state = repr((list(self._windows.items()), list(self._newest.items())))
        return hashlib.sha256(state.encode()).digest()
