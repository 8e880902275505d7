"""The audit log of a node: who asked for what, whether it was allowed, why, and under which grant (S31).

Decisions that come in a flood are one entry a second with their number in `count`; nothing else is joined. Entries are
written and fsynced once a second with a signed head, and at the end.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from meshfold.mesh.clocks import HybridClock
from meshfold.security import AuditChain, AuditReport, NodeKeys, read_audit

__all__ = ("AuditFile",)

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
FILES_MAX: Final = 8
#: Different things that may happen in one second; further ones are counted in one entry.
PENDING_MAX: Final = 1024
#: Entries in one answer.
TAIL_MAX: Final = 2000
TAIL_BYTES_MAX: Final = 700 * 1024
_Key = tuple[str, str, str, bool, str, str]


class AuditFile:
    """One node's. Until it is opened it writes nothing: a life that only asks leaves no trace of its own."""

    def __init__(self, keys: NodeKeys, hlc: HybridClock) -> None:
        self._keys = keys
        self._hlc = hlc
        self._path: Path | None = None
        self._chain = AuditChain()
        self._pending: OrderedDict[_Key, tuple[int, int]] = OrderedDict()
        self._overflow = 0
        #: why the log of earlier lives does not hold; it was put aside then
        self.broken = ""

    def open(self, folder: Path) -> None:
        """Go on with the log in `folder`. One that does not hold is put aside, and said so in the first entry."""
        self._path = folder / "audit.log"
        if not self._path.exists():
            return
        report = self._read_whole()
        if report.broken:
            self.broken = report.broken
            self._path.rename(self._path.with_name(f"audit.broken-{self._hlc.now_ms()}"))
            self._chain = AuditChain()
            self.note("", "audit", "", False, f"the log of earlier lives does not hold: {report.broken}")
        else:
            self._chain = AuditChain(report.seq, report.prev)

    def _read_whole(self) -> AuditReport:
        assert self._path is not None
        first = not self._path.with_name("audit.log.1").exists()
        lines = [line for line in self._path.read_bytes().split(b"\n") if line]
        return read_audit(lines, self._keys.node_pub, first=first)

    def note(
        self, who: str, action: str, route: str, allowed: bool, because: str, grant: str = "", count: int = 1
    ) -> None:
        """Something was decided; written within a second."""
        key = (who, action, route, allowed, because, grant)
        at_ms, before = self._pending.get(key, (self._hlc.now_ms(), 0))
        if not before and len(self._pending) >= PENDING_MAX:
            self._overflow += count
            return
        self._pending[key] = at_ms, before + count

    def flush(self) -> None:
        """Write what was noted, and a signed head over it.

        :raises OSError: if it cannot be written; what was noted is kept for the next time
        """
        if self._overflow:
            key = ("", "many", "", False, f"more than {PENDING_MAX} different things in a second", "")
            self._pending[key] = self._hlc.now_ms(), self._overflow
            self._overflow = 0
        if self._path is None:
            self._pending.clear()
        if not self._pending or self._path is None:
            return
        seq, prev = self._chain.seq, self._chain.prev
        lines = [
            self._chain.entry(
                at_ms,
                who=who,
                action=action,
                route=route,
                allowed=allowed,
                because=because,
                grant=grant,
                count=count,
            )
            for (who, action, route, allowed, because, grant), (at_ms, count) in self._pending.items()
        ]
        head = self._chain.head(self._keys, self._hlc.now_ms())
        assert head is not None
        try:
            self._append(b"\n".join((*lines, head)) + b"\n")
        except OSError:
            self._chain = AuditChain(seq, prev)
            raise
        self._pending.clear()

    def _append(self, data: bytes) -> None:
        assert self._path is not None
        if self._path.exists() and self._path.stat().st_size + len(data) > FILE_BYTES_MAX:
            for number in range(FILES_MAX - 1, 0, -1):
                older = self._path.with_name(f"audit.log.{number}")
                if older.exists():
                    older.replace(self._path.with_name(f"audit.log.{number + 1}"))
            self._path.with_name(f"audit.log.{FILES_MAX}").unlink(missing_ok=True)
            self._path.replace(self._path.with_name("audit.log.1"))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        except OSError:
            # A half-written line would break the chain for whoever reads it later.
            os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)

    def tail(self, count: int) -> dict[str, Any]:
        """The last lines, and whether the whole of the present file holds."""
        if self._path is None or not self._path.exists():
            return {"lines": [], "first": True, "holds": True, "broken": ""}
        report = self._read_whole()
        lines = [line.decode() for line in self._path.read_bytes().split(b"\n") if line]
        kept = lines[-max(1, min(count, TAIL_MAX)) :]
        while kept and sum(map(len, kept)) > TAIL_BYTES_MAX:
            kept = kept[len(kept) // 2 :]
        first = len(kept) == len(lines) and not self._path.with_name("audit.log.1").exists()
        return {"lines": kept, "first": first, "holds": not report.broken, "broken": report.broken}
