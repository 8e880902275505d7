"""What a node refused and was refused, counted and kept for who asks: frames, questions, its own wishes, and its problems.

Every entry has one place where it is told: counters in `status` and the vitals, rows in `refusals`, the audit file, traces.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

from meshfold.core import Address
from meshfold.core.errors import GrantDenied, MeshfoldError
from meshfold.core.ports import Decision
from meshfold.core.registry import Action
from meshfold.mesh.node.audit import AuditFile
from meshfold.mesh.node.members import Directory
from meshfold.mesh.telemetry import Recorder
from meshfold.security import Identity

__all__ = ("Ledger",)

PROBLEMS_MAX: Final = 64
#: Refusals kept for `refusals` and the live view.
REFUSALS_MAX: Final = 256
#: Questions that come many times a second: they are noted only where they are refused.
UNREMARKABLE: Final = frozenset(("election_keep", "challenge", "log_watch"))


class Ledger:
    """One session's."""

    def __init__(self, name: str, directory: Directory, audit: AuditFile, recorder: Recorder) -> None:
        self._name = name
        self._directory = directory
        self._audit = audit
        self._recorder = recorder
        #: refused frames by reason
        self.rejected: Counter[str] = Counter()
        #: how often a grant was missing, here or at who asked
        self.denials = 0
        #: the last refusals of what this node itself wanted
        self.refusals: deque[dict[str, Any]] = deque(maxlen=REFUSALS_MAX)
        #: what `status` shows to people
        self.problems: deque[str] = deque(maxlen=PROBLEMS_MAX)

    def refuse(self, route: str, action: str, error: str) -> None:
        """Note a refusal of this node for `refusals`."""
        self.refusals.append({"node": self._name, "route": route, "action": action, "error": error})
        self.denials += 1
        self._recorder.denied(action, route, self._name)

    def denied(self, error: GrantDenied) -> None:
        """Note that this node refused somebody's question."""
        self.denials += 1
        facts = {name: str(error.fields.get(name, "")) for name in ("action", "route", "principal")}
        self._recorder.denied(**facts)

    def reject(self, reason: str, where: str) -> None:
        """Count a refused frame: it is no event (S43)."""
        self.rejected[reason] += 1
        self._audit.note("", "frame", where, False, reason)
        self._recorder.rejected(reason, where)

    def decided(self, principal: bytes, action: Action, address: Address, decision: Decision) -> None:
        """Note a decision about a grant in the audit file."""
        self._audit.note(
            self._name_of(principal),
            action.name or str(int(action)),
            address.short,
            decision.allowed,
            decision.because,
            decision.grant.hex(),
        )

    def asked(self, asker: Identity, command: str, error: MeshfoldError | None) -> None:
        """Note that a node asked this one something, and whether it was answered."""
        if error is None and command in UNREMARKABLE:
            return
        self._audit.note(
            asker.name, f"ask {command}", "", error is None, "" if error is None else str(error)[:200]
        )

    def _name_of(self, tag: bytes) -> str:
        identity = self._directory.lookup(tag)
        return identity.name if identity is not None else tag.hex()
