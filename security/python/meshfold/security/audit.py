"""The audit chain: each entry names the hash of the one before, and signed heads say how far it had come.

A line is one JSON document, its members in the order of their names. Entries: `seq` from 1, `at_ms`, what happened (`who`,
`action`, `route`, `allowed`, `because`, `grant`, `count`), `prev`: SHA-256 of the line before (zeros for the first). Heads:
`head` (the seq it covers), `at_ms`, `prev`, `sig` over "MF1 audit" NUL the line without it. So an entry that is changed, left out or
put in shows, and one cut off at the end shows as soon as somebody has seen a later head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from meshfold.core.errors import FrameRejected
from meshfold.security.keys import NodeKeys, verify

__all__ = ("AuditChain", "AuditReport", "read_audit")

DOMAIN: Final = b"MF1 audit"
START: Final = "0" * 64
LINE_BYTES_MAX: Final = 8192
TEXT_MAX: Final = 500


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


class AuditChain:
    """Makes lines. `seq` and `prev` come from the last line of an earlier life, if there was one."""

    def __init__(self, seq: int = 0, prev: str = START) -> None:
        self.seq = seq
        #: SHA-256 of the last line
        self.prev = prev
        self._headed = seq

    def entry(
        self,
        at_ms: int,
        *,
        who: str,
        action: str,
        route: str,
        allowed: bool,
        because: str,
        grant: str = "",
        count: int = 1,
    ) -> bytes:
        """The next entry, as a line without its end."""
        self.seq += 1
        line = _line(
            {
                "seq": self.seq,
                "at_ms": at_ms,
                "who": who[:TEXT_MAX],
                "action": action[:TEXT_MAX],
                "route": route[:TEXT_MAX],
                "allowed": allowed,
                "because": because[:TEXT_MAX],
                "grant": grant,
                "count": count,
                "prev": self.prev,
            }
        )
        self.prev = _hash(line)
        return line

    def head(self, keys: NodeKeys, at_ms: int) -> bytes | None:
        """A signed head over what has been added since the last one; None if nothing was."""
        if self._headed == self.seq:
            return None
        self._headed = self.seq
        document: dict[str, Any] = {"head": self.seq, "at_ms": at_ms, "prev": self.prev}
        document["sig"] = keys.sign(DOMAIN, _line(document)).hex()
        line = _line(document)
        self.prev = _hash(line)
        return line


@dataclass
class AuditReport:
    """What reading a chain found."""

    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    #: the highest seq that a signed head covers
    signed_to: int = 0
    #: why the chain does not hold; empty if it does
    broken: str = ""
    #: seq and hash to go on from
    seq: int = 0
    prev: str = START


def read_audit(lines: Iterable[bytes], node_pub: bytes, *, first: bool = True) -> AuditReport:
    """Read and verify a chain, or a piece of one that begins later (`first` False).

    It stops at the first line that does not hold; what it gives up to there does.
    """
    report = AuditReport()
    known = first
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
            if len(line) > LINE_BYTES_MAX or _line(document) != line:
                raise ValueError
            prev, is_head = str(document["prev"]), "head" in document
            seq = int(document["head" if is_head else "seq"])
        except (ValueError, KeyError, TypeError):
            report.broken = f"line {number} is no line of an audit log"
            return report
        if known and prev != report.prev:
            report.broken = (
                f"line {number} does not follow the one before: something was changed, left out or put in"
            )
            return report
        if not is_head and known and seq != report.seq + 1:
            report.broken = f"line {number} has number {seq} after {report.seq}"
            return report
        if is_head and not _head_holds(document, node_pub):
            report.broken = f"line {number}: the signature of the head over {seq} does not hold"
            return report
        if is_head and known and seq != report.seq:
            report.broken = f"line {number}: a head over {seq} after entry {report.seq}"
            return report
        known = True
        report.seq, report.prev = seq, _hash(line)
        if is_head:
            report.signed_to = seq
        else:
            report.entries.append(document)
    return report


def _head_holds(document: dict[str, Any], node_pub: bytes) -> bool:
    said = {name: value for name, value in document.items() if name != "sig"}
    try:
        verify(node_pub, DOMAIN, _line(said), bytes.fromhex(str(document.get("sig", ""))))
    except (FrameRejected, ValueError):
        return False
    return True
