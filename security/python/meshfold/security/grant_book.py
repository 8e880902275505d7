"""The grants a node knows and the decisions they give (S32). Default deny."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshfold.core import Address
from meshfold.core.errors import FrameRejected, GrantDenied, GrantExpired, GrantRevoked, SecurityError
from meshfold.core.ports import Clock, Decision
from meshfold.core.registry import Action
from meshfold.security.capability import matches
from meshfold.security.grant import Grant
from meshfold.security.identity import SKEW_MS, Identity

__all__ = ("GrantBook", "Policy")

HOLDERS_MAX: Final = 4096
GRANTS_EACH_MAX: Final = 64


@dataclass(frozen=True)
class Policy:
    """Which grants no longer hold: hashes of links, and public keys. The epoch only rises."""

    epoch: int
    revoked: frozenset[bytes]


class GrantBook:
    """Verified grants by holder; answers `decide` and `require`. Implements `AccessDecider`."""

    def __init__(
        self,
        cluster: bytes,
        roots: frozenset[bytes],
        *,
        clock: Clock,
        directory: Callable[[bytes], Identity | None] = lambda tag: None,
    ) -> None:
        self._cluster = cluster
        self._roots = roots
        self._clock = clock
        self._directory = directory
        self._grants: dict[bytes, dict[bytes, Grant]] = {}
        self.policy = Policy(0, frozenset())

    def add(self, grant: Grant, now_ms: int) -> None:
        """Verify and keep a grant.

        :raises FrameRejected: if it does not hold, or a bound is reached (`limit`)
        """
        held = self._grants.get(grant.tag)
        if held is not None and grant.hash in held and held[grant.hash].raw == grant.raw:
            return
        grant.verify(cluster=self._cluster, roots=self._roots, now_ms=now_ms)
        if held is None:
            if len(self._grants) >= HOLDERS_MAX:
                raise FrameRejected("limit", "too many holders of grants")
            held = self._grants[grant.tag] = {}
        if len(held) >= GRANTS_EACH_MAX:
            raise FrameRejected("limit", "too many grants of one holder")
        held[grant.hash] = grant

    def set_policy(self, policy: Policy) -> None:
        """Take a newer policy; an older one is refused with reason `policy`."""
        if policy.epoch < self.policy.epoch:
            raise FrameRejected("policy", "an older policy epoch")
        self.policy = policy

    def grants_of(self, tag: bytes) -> list[Grant]:
        """Grants of a holder that hold now."""
        return [grant for grant in self._grants.get(tag, {}).values() if self._holds(grant) is None]

    def _revoked(self, grant: Grant) -> bool:
        revoked = self.policy.revoked
        return any(
            link.hash in revoked or link.subject_pub in revoked or link.issuer_pub in revoked
            for link in grant.links
        )

    def _holds(self, grant: Grant) -> str | None:
        now_ms = self._clock.now()[0] // 1_000_000
        if self._revoked(grant):
            return "revoked"
        if now_ms > grant.not_after_ms + SKEW_MS:
            return "expired"
        return None

    def decide(self, principal: bytes, action: Action, address: Address) -> Decision:
        """Say whether the holder may take the action on the address now, and which grant or lack of one decides."""
        reasons: list[str] = []
        for grant in self._grants.get(principal, {}).values():
            for capability in grant.capabilities:
                if not capability.actions & action or not matches(capability.pattern, address):
                    continue
                fault = self._holds(grant)
                if fault is None:
                    return Decision(
                        True, f"grant {grant.hash.hex()[:12]} allows {capability.pattern}", grant.hash
                    )
                reasons.append(f"grant {grant.hash.hex()[:12]} is {fault}")
        return Decision(
            False, reasons[0] if reasons else f"no grant with {action.name} covers {address.text}"
        )

    def require(self, principal: bytes, action: Action, address: Address) -> None:
        """Return if the action is allowed.

        :raises GrantDenied: naming principal, action, route and what would allow it
        :raises GrantExpired: if the grant that would allow it has expired
        :raises GrantRevoked: if it was revoked
        """
        decision = self.decide(principal, action, address)
        if decision.allowed:
            return
        identity = self._directory(principal)
        name = identity.name if identity is not None else principal.hex()
        kind: type[SecurityError] = GrantDenied
        if decision.because.endswith("is revoked"):
            kind = GrantRevoked
        elif decision.because.endswith("is expired"):
            kind = GrantExpired
        raise kind(
            f"{name} may not {action.name} {address.short}: {decision.because}",
            fix=f"a grant would allow it: meshfold grant issue {name} {address.short} --action {action.name}",
            principal=name,
            action=action.name,
            route=address.short,
            because=decision.because,
        )
