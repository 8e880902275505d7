"""Who may do what: asked on every path, answered by the security room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meshfold.core.address import Address
from meshfold.core.registry import Action

__all__ = ("AccessDecider", "Decision")


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer with its reason."""

    allowed: bool
    #: the link and rule that decided, in words a person can act on
    because: str
    #: hash of the grant that allowed it, empty where none did
    grant: bytes = b""
    #: (kind of caveat, limit) that whoever serves the action has to keep
    limits: tuple[tuple[int, int], ...] = ()


class AccessDecider(Protocol):
    """Decides by grants; default deny (S32)."""

    def decide(self, principal: bytes, action: Action, address: Address) -> Decision:
        """Say whether the identity with this 8-byte tag may take one `action` on `address` now."""
        ...
