"""What every hostile row asserts: the stated refusal, its counter moved by one each, nothing else changed, traffic flows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from meshfold.core.errors import FrameRejected, KeyMissing
from parties import SECRET, Mesh, Party

__all__ = ("ANY_REASON", "VARIANTS", "Row", "refused_as")

#: What a frame with a random bit changed may be refused for.
ANY_REASON = (
    *("magic", "version", "flags", "suite", "kind", "ext", "size", "route", "epoch", "policy", "unsigned"),
    *("sig", "tag", "replay", "age", "incarnation", "clock", "short", "member", "limit", "gap"),
)
#: Generated variants of each row about bytes.
VARIANTS = 100


def refused_as(work: Callable[[], Any]) -> str:
    """The reason for which `work` was refused; a missing key counts as `epoch`, as the opener counts it."""
    try:
        work()
    except FrameRejected as error:
        return error.reason
    except KeyMissing:
        return "epoch"
    raise AssertionError("accepted")


class Row:
    """One row of the table, run against one reader."""

    def __init__(self, mesh: Mesh, reader: Party | None = None) -> None:
        self.mesh = mesh
        self.reader = reader or mesh.hub
        self.seed = random.randrange(2**32)
        self.rng = random.Random(self.seed)

    def refuses(self, frames: Iterable[bytes], *reasons: str, form: Any = "d", address: Any = SECRET) -> int:
        """Give every frame to the reader's opener; returns how many there were."""
        count = 0
        opener = self.reader.opener
        for raw in frames:
            before, state = opener.counters(), opener.fingerprint()
            found = refused_as(lambda raw=raw: opener.open_events(form, address, raw))  # type: ignore[misc]
            assert found in reasons, f"{found} instead of {reasons}, variant {count}, seed {self.seed}"
            after = opener.counters()
            assert after.pop(found) == before.pop(found, 0) + 1, f"counter of {found}, seed {self.seed}"
            assert after == before, f"another counter moved, seed {self.seed}"
            assert opener.fingerprint() == state, f"state changed, variant {count}, seed {self.seed}"
            count += 1
        self.traffic_flows()
        return count

    def traffic_flows(self) -> None:
        """An honest frame is still taken."""
        opened = self.reader.opener.open_events("d", SECRET, self.mesh.edge.seal().whole())
        assert opened.payload == b"the payload"

    def flipped(self, raw: bytes) -> bytes:
        """One random bit of it changed."""
        place = self.rng.randrange(len(raw))
        return self.changed(raw, place, raw[place] ^ 1 << self.rng.randrange(8))

    @staticmethod
    def changed(raw: bytes, place: int, *values: int) -> bytes:
        """These bytes at that place."""
        return raw[:place] + bytes(values) + raw[place + len(values) :]
