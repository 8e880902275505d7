"""Capabilities inside one process: who may do what on which route, and a record of it (S31, S32).

Nouns: a **principal** is an object that only `Access` makes, never a name somebody passes; a **local grant** gives actions
on a pattern, ends, and can be taken back; a **view** (`meshfold.core.view`) is the graph as one principal may use it.
Rules: default deny; an explicit denial beats every grant and export; what a principal passes on is never more than it has
and ends with it. The graph object itself is its owner's handle and may do everything: hand out views, not the graph.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from meshfold.core.address import Address
from meshfold.core.errors import GrantDenied, WiringError
from meshfold.core.ports.access import Decision
from meshfold.core.registry import Action
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.query.rows import AuditRow

__all__ = ("Access", "AuditEntry", "LocalGrant", "OwnerSight", "Principal", "PrincipalSight", "Sight")

#: Entries kept in memory; `Access.audit_to` keeps them where a route's retention or an event log does.
AUDIT_ENTRIES_MAX: Final = 65_536
GRANTS_MAX: Final = 16_384
PRINCIPALS_MAX: Final = 4096
#: Grants between a principal and the owner, as in grants of a mesh.
CHAIN_MAX: Final = 4
_PREFIX: Final = re.compile(r"(?:(?:[a-z0-9-]|_[0-9a-f]{2})+\.){0,5}>")
_MAKE: Final = object()


class Principal:
    """Somebody who holds this very object. It cannot be copied, pickled or made by name."""

    __slots__ = ("name", "tag")

    def __init__(self, key: object, name: str, tag: bytes) -> None:
        if key is not _MAKE:
            raise WiringError(
                "principals are not made by name", fix="graph.access.principal(name)", item=name
            )
        self.name = name
        self.tag = tag

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a principal does not leave its process")

    def __repr__(self) -> str:
        return f"<Principal {self.name}>"


@dataclass(eq=False)
class LocalGrant:
    """Actions of one principal on a pattern. `revoke` ends it and everything passed on from it."""

    holder: Principal
    pattern: str
    actions: Action
    not_after: int | None = None
    parent: LocalGrant | None = None
    revoked: bool = False

    def revoke(self) -> None:
        """Take it back, at once. Idempotent."""
        self.revoked = True

    def holds(self, now: int) -> bool:
        """Whether it and every grant above it is in force at `now`, ns."""
        if self.revoked or (self.not_after is not None and now > self.not_after):
            return False
        return self.parent is None or self.parent.holds(now)

    @property
    def depth(self) -> int:
        """How many grants stand above it."""
        return 0 if self.parent is None else self.parent.depth + 1


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did or was refused what, when (S31)."""

    number: int
    time: int
    principal: str
    action: Action
    address: Address | None
    seq: int
    allowed: bool
    because: str

    def row(self) -> AuditRow:
        """The entry as a typed row."""
        from meshfold.core.query.rows import AuditRow

        return AuditRow(
            self.number,
            self.time,
            self.principal,
            self.action.name or str(int(self.action)),
            self.address.short if self.address is not None else "",
            self.seq,
            self.allowed,
            self.because,
        )


class Sight(Protocol):
    """What an asker may see: the side of access that answers need."""

    def sees(self, action: Action, address: Address) -> bool:
        """Whether the action is allowed now."""
        ...

    def require(self, action: Action, r: Route[Any]) -> None:
        """Go on only if it is.

        :raises GrantDenied: naming action and route
        """
        ...

    def require_any(self, action: Action) -> None:
        """Go on only if the action is allowed on some route.

        :raises GrantDenied: naming the action
        """
        ...

    def entries(self, since: int) -> Iterator[AuditEntry]:
        """Audit entries from number `since` on."""
        ...


@dataclass
class Access:
    """The capabilities of one graph. `graph.access` is the one that its views ask.

    :param now: the graph's wall clock, ns
    """

    now: Callable[[], int]
    _principals: dict[bytes, Principal] = field(default_factory=dict[bytes, Principal])
    _grants: dict[bytes, list[LocalGrant]] = field(default_factory=dict[bytes, list[LocalGrant]])
    _denials: list[tuple[bytes, str, Action]] = field(default_factory=list[tuple[bytes, str, Action]])
    _exports: list[str] = field(default_factory=list[str])
    _entries: deque[AuditEntry] = field(default_factory=lambda: deque(maxlen=AUDIT_ENTRIES_MAX))
    _count: int = 0
    _tell: Callable[[AuditEntry], object] | None = None

    def principal(self, name: str) -> Principal:
        """Make the principal of this name; whoever gets the object is that principal.

        :raises WiringError: if the name is taken, or there are too many
        """
        tag = hashlib.sha256(f"principal {name}".encode()).digest()[:8]
        if tag in self._principals or len(self._principals) >= PRINCIPALS_MAX:
            raise WiringError(
                f"principal {name!r} exists already, or there are {PRINCIPALS_MAX}",
                fix="hand on the object that principal() returned",
                item=name,
            )
        self._principals[tag] = made = Principal(_MAKE, name, tag)
        return made

    def require_known(self, principal: Principal) -> None:
        """Go on only if the principal is one of this graph.

        :raises GrantDenied: for an object of another graph, or no principal at all
        """
        known = self._principals.get(getattr(principal, "tag", b""))
        if known is None or known is not principal:
            raise GrantDenied(
                f"{principal!r} is no principal of this graph",
                fix="graph.access.principal(name) makes one",
                principal=repr(principal),
                action="",
                route="",
                because="not authenticated",
            )

    def grant(
        self,
        holder: Principal,
        pattern: str | Route[Any],
        actions: Action,
        *,
        for_s: float | None = None,
        by: Principal | None = None,
    ) -> LocalGrant:
        """Give actions on a route, or on all whose address begins with `prefix.>`.

        :param for_s: seconds it holds; None: until revoked
        :param by: who passes it on: needs DELEGATE and every one of the actions on all of the pattern
        :raises WiringError: for a pattern that is none, or no action
        :raises GrantDenied: if `by` may not pass it on, or a principal is unknown
        """
        self.require_known(holder)
        text = _pattern(pattern)
        if not actions:
            raise WiringError("a grant of no action", fix="name one of Action", item="actions")
        now = self.now()
        not_after = None if for_s is None else now + int(for_s * 1e9)
        parent = None if by is None else self._parent(by, text, actions, now)
        if parent is not None and parent.not_after is not None:
            not_after = parent.not_after if not_after is None else min(not_after, parent.not_after)
        grants = self._grants.setdefault(holder.tag, [])
        grants[:] = [grant for grant in grants if grant.holds(now)]
        if sum(map(len, self._grants.values())) >= GRANTS_MAX:
            raise WiringError(f"{GRANTS_MAX} grants are in force", fix="revoke some", item=text)
        grants.append(made := LocalGrant(holder, text, actions, not_after, parent))
        self.note(by, Action.DELEGATE, None, True, f"{holder.name}: {actions!r} on {text}")
        return made

    def _parent(self, by: Principal, pattern: str, actions: Action, now: int) -> LocalGrant:
        self.require_known(by)
        for grant in self._grants.get(by.tag, ()):
            wide = grant.pattern == pattern or _covers(grant.pattern, pattern.removesuffix(">"))
            enough = (actions | Action.DELEGATE) in grant.actions and grant.depth + 1 < CHAIN_MAX
            if wide and enough and grant.holds(now):
                return grant
        because = f"{by.name} holds no DELEGATE with these actions on all of {pattern}"
        self.note(by, Action.DELEGATE, None, False, because)
        raise GrantDenied(
            because,
            fix="pass on a part of what is held",
            principal=by.name,
            action="DELEGATE",
            route=pattern,
            because=because,
        )

    def deny(self, principal: Principal, pattern: str | Route[Any], actions: Action) -> None:
        """Refuse actions whatever grants and exports say.

        :raises WiringError: for a pattern that is none
        :raises GrantDenied: if the principal is unknown
        """
        self.require_known(principal)
        self._denials.append((principal.tag, _pattern(pattern), actions))

    def export(self, pattern: str | Route[Any]) -> None:
        """Let every principal read the metadata of these routes, and nothing more.

        :raises WiringError: for a pattern that is none
        """
        self._exports.append(_pattern(pattern))

    def decide(self, principal: bytes, action: Action, address: Address) -> Decision:
        """Say whether the principal with this tag may take one action on a route now, and why."""
        text, now = address.text, self.now()
        if address.layer == "ephemeral":
            return Decision(False, "ephemeral routes are private")
        for tag, pattern, actions in self._denials:
            if tag == principal and action in actions and _covers(pattern, text):
                return Decision(False, f"denied explicitly on {pattern}")
        for grant in self._grants.get(principal, ()):
            if action in grant.actions and _covers(grant.pattern, text) and grant.holds(now):
                return Decision(True, f"granted on {grant.pattern}")
        if action == Action.META_READ and any(_covers(pattern, text) for pattern in self._exports):
            return Decision(True, "exported")
        return Decision(False, f"no grant of {action.name} on {address.short}")

    def holds_any(self, principal: bytes, action: Action) -> bool:
        """Whether some grant in force has the action."""
        now = self.now()
        return any(action in grant.actions and grant.holds(now) for grant in self._grants.get(principal, ()))

    def note(
        self,
        who: Principal | None,
        action: Action,
        address: Address | None,
        allowed: bool,
        because: str,
        seq: int = 0,
    ) -> None:
        """Append an audit entry."""
        self._count += 1
        name = "owner" if who is None else who.name
        entry = AuditEntry(self._count, self.now(), name, action, address, seq, allowed, because)
        self._entries.append(entry)
        if self._tell is not None:
            self._tell(entry)

    def audit_to(self, tell: Callable[[AuditEntry], object] | None) -> None:
        """Hand every further entry to `tell` as it is made: publish it on a route, append it to an event log."""
        self._tell = tell

    def entries(self, since: int = 0) -> Iterator[AuditEntry]:
        """The entries kept, oldest first, from number `since` on. Numbers that are missing have left memory."""
        return iter([entry for entry in self._entries if entry.number >= since])


class OwnerSight:
    """The owner of a graph sees everything."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def sees(self, action: Action, address: Address) -> bool:
        """Always."""
        return True

    def require(self, action: Action, r: Route[Any]) -> None:
        """Always holds."""

    def require_any(self, action: Action) -> None:
        """Always holds."""

    def entries(self, since: int) -> Iterator[AuditEntry]:
        """All entries."""
        return self._access.entries(since)


class PrincipalSight:
    """What one principal sees now."""

    def __init__(self, access: Access, principal: Principal) -> None:
        access.require_known(principal)
        self._access = access
        self._principal = principal

    def sees(self, action: Action, address: Address) -> bool:
        """Whether the action is allowed now."""
        return self._access.decide(self._principal.tag, action, address).allowed

    def require(self, action: Action, r: Route[Any]) -> None:
        """Go on only if it is allowed; the refusal is noted in the audit.

        :raises GrantDenied: naming action and route
        """
        decision = self._access.decide(self._principal.tag, action, r.addr)
        if not decision.allowed:
            self._access.note(self._principal, action, r.addr, False, decision.because)
            raise denied(self._principal.name, action, r.text, decision.because)

    def require_any(self, action: Action) -> None:
        """Go on only if some grant has the action.

        :raises GrantDenied: naming the action
        """
        if not self._access.holds_any(self._principal.tag, action):
            because = f"no grant of {action.name}"
            self._access.note(self._principal, action, None, False, because)
            raise denied(self._principal.name, action, "", because)

    def entries(self, since: int) -> Iterator[AuditEntry]:
        """All entries; answers filter them by route."""
        return self._access.entries(since)


def denied(name: str, action: Action, text: str, because: str) -> GrantDenied:
    """The refusal of one action."""
    return GrantDenied(
        f"{name} may not {action.name} {text or 'here'}: {because}",
        fix="ask the owner of the graph for a grant",
        principal=name,
        action=action.name,
        route=text,
        because=because,
    )


def _pattern(pattern: str | Route[Any]) -> str:
    """An exact address in full, or a prefix of whole tokens ending in `>`."""
    if isinstance(pattern, Route):
        return pattern.address
    if pattern.endswith(">"):
        if not _PREFIX.fullmatch(pattern):
            raise WiringError(
                f"{pattern[:80]!r} is no pattern",
                fix="write whole tokens of the full address and a final >, such as read.logical.kiln-7.>",
                item=pattern,
            )
        return pattern
    return Address.parse(pattern).text


def _covers(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith(">") else text == pattern
